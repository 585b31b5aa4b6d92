"""A member of a group by kafka-python, as `groups` wants it."""

import logging
import os
import signal

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import RetriableError

from groups import HEARTBEAT_MS, options, report, when_asked_to_leave
from suite import BOOTSTRAP


class Reporter(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        report("assigned", [p.partition for p in assigned])

    def on_partitions_revoked(self, revoked):
        report("revoked", [p.partition for p in revoked])


logging.disable(logging.CRITICAL)
topic, group, instance, cooperative, session_ms = options()
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
when_asked_to_leave(lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    while True:
        try:
            # A poll that ends in the middle of a join spoils it, so it is endless, but for the signal.
            batches = consumer.poll(float("inf"))
        except RetriableError:
            # The broker is away.
            continue
        consumer.commit()
        report("records", [message.value.decode() for batch in batches.values() for message in batch])
except KeyboardInterrupt:
    consumer.close()
