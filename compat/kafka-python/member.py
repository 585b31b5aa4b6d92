"""A member of a group by kafka-python, as `groups` wants it."""

import logging

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import RetriableError

from groups import HEARTBEAT_MS, leave_asked, options, report
from suite import BOOTSTRAP


class Reporter(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        report("assigned", [p.partition for p in assigned])

    def on_partitions_revoked(self, revoked):
        report("revoked", [p.partition for p in revoked])


logging.disable(logging.CRITICAL)
topic, group, instance, cooperative, session_ms = options()
leaving = leave_asked()
consumer = KafkaConsumer(
    bootstrap_servers=BOOTSTRAP,
    group_id=group,
    group_instance_id=instance,
    partition_assignment_strategy=[CooperativeStickyAssignor if cooperative else RangePartitionAssignor],
    session_timeout_ms=session_ms,
    heartbeat_interval_ms=HEARTBEAT_MS,
    auto_offset_reset="earliest",
    enable_auto_commit=False,
)
consumer.subscribe([topic], listener=Reporter())
while not leaving.is_set():
    try:
        # When a poll ends before a join does, this client joins once more, which can mean a rebalance: rather long polls.
        batches = consumer.poll(2000)
    except RetriableError:
        # The broker is away.
        continue
    messages = [message for batch in batches.values() for message in batch]
    if messages:
        consumer.commit()
        report("records", [message.value.decode() for message in messages])
consumer.close()
