"""A member of a group by confluent-kafka, as `groups` wants it."""

import threading

from confluent_kafka import Consumer, KafkaException

from groups import HEARTBEAT_MS, options, report, when_asked_to_leave
from suite import BOOTSTRAP

topic, group, instance, cooperative, session_ms = options()
config = {
    "bootstrap.servers": BOOTSTRAP,
    "log_level": 2,
    "group.id": group,
    "partition.assignment.strategy": "cooperative-sticky" if cooperative else "range",
    "session.timeout.ms": session_ms,
    "heartbeat.interval.ms": HEARTBEAT_MS,
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
}
if instance:
    config["group.instance.id"] = instance
leaving = threading.Event()
when_asked_to_leave(leaving.set)
consumer = Consumer(config)
consumer.subscribe(
    [topic],
    on_assign=lambda _, partitions: report("assigned", [p.partition for p in partitions]),
    on_revoke=lambda _, partitions: report("revoked", [p.partition for p in partitions]),
)
while not leaving.is_set():
    if messages := consumer.consume(100, 0.1):
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        consumer.commit(asynchronous=False)
        report("records", [message.value().decode() for message in messages])
consumer.close()
