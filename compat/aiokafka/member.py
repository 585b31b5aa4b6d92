"""A member of a group by aiokafka, as `groups` wants it."""

import asyncio
import logging
import threading

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaConnectionError

from groups import HEARTBEAT_MS, options, report, when_asked_to_leave
from suite import BOOTSTRAP


class Reporter(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        report("assigned", [p.partition for p in assigned])

    def on_partitions_revoked(self, revoked):
        report("revoked", [p.partition for p in revoked])


async def start(consumer):
    """Waits for the broker, which this client leaves to its user."""
    while True:
        try:
            return await consumer.start()
        except KafkaConnectionError:
            await asyncio.sleep(0.1)


async def consume():
    leaving = threading.Event()
    when_asked_to_leave(leaving.set)
    topic, group, instance, _, session_ms = options()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        group_instance_id=instance,
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=HEARTBEAT_MS,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.subscribe([topic], listener=Reporter())
    await start(consumer)
    while not leaving.is_set():
        messages = [m for batch in (await consumer.getmany(timeout_ms=100)).values() for m in batch]
        if messages:
            await consumer.commit()
            report("records", [message.value.decode() for message in messages])
    await consumer.stop()


logging.disable(logging.CRITICAL)
asyncio.run(consume())
