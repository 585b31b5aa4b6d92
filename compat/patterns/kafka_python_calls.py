"""The calls of usual kafka-python programs, unchanged: producers with every setting, groups, commits, replay, a partitioner.

Topics come to be when they are first written to; each part below is a program as introductions to Kafka show them.
"""

import json
import os
from collections import defaultdict

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

BOOTSTRAP = os.environ.get("BOOTSTRAP", "localhost:9092")


def take(consumer, count):
    """So many messages of a loop that would go on for ever."""
    found = []
    for message in consumer:
        found.append(message)
        if len(found) == count:
            return found


# The shortest program: a topic that nobody has made, and a consumer without a group.
producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
for order in range(3):
    producer.send("orders", b'{"order_id": %d}' % order)
producer.flush()
consumer = KafkaConsumer("orders", bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
assert [json.loads(message.value)["order_id"] for message in take(consumer, 3)] == [0, 1, 2]
consumer.close()

# A producer with serializers, batches and compression; what has the same key is in one partition, in order.
KafkaAdminClient(bootstrap_servers=[BOOTSTRAP]).create_topics([NewTopic("page_views", 3, 1)])
producer = KafkaProducer(
    bootstrap_servers=[BOOTSTRAP],
    key_serializer=lambda k: k.encode("utf-8") if k else None,
    value_serializer=lambda v: json.dumps(v).encode("utf-8"),
    acks="all",
    retries=3,
    retry_backoff_ms=100,
    linger_ms=5,
    batch_size=16384,
    compression_type="gzip",
)
for i in range(100):
    future = producer.send(topic="page_views", key=f"user-{i % 10}", value={"page": f"/product/{i}"})
metadata = future.get(timeout=10)
assert metadata.topic == "page_views" and metadata.offset >= 0
producer.flush()
producer.close()

# A group that commits by itself.
consumer = KafkaConsumer(
    "page_views",
    bootstrap_servers=[BOOTSTRAP],
    group_id="analytics-group",
    key_deserializer=lambda k: k.decode("utf-8") if k else None,
    value_deserializer=lambda v: json.loads(v.decode("utf-8")),
    auto_offset_reset="earliest",
    enable_auto_commit=True,
    auto_commit_interval_ms=5000,
)
pages, partitions = defaultdict(list), defaultdict(set)
for message in take(consumer, 100):
    pages[message.key].append(int(message.value["page"].removeprefix("/product/")))
    partitions[message.key].add(message.partition)
assert pages == {f"user-{user}": list(range(user, 100, 10)) for user in range(10)}
assert all(len(found) == 1 for found in partitions.values()), "a key is in two partitions"
consumer.close()

# The same group goes on where it was, committing by hand. What it did not commit, the next one gets.
with_commits = {
    "bootstrap_servers": [BOOTSTRAP],
    "group_id": "analytics-group",
    "value_deserializer": lambda v: json.loads(v.decode("utf-8")),
    "enable_auto_commit": False,
}
producer = KafkaProducer(bootstrap_servers=[BOOTSTRAP], value_serializer=lambda v: json.dumps(v).encode("utf-8"))
for i in (100, 101):
    producer.send("page_views", key=b"user-0", value={"page": f"/product/{i}"})
producer.flush()
for page in (100, 101):
    consumer = KafkaConsumer("page_views", **with_commits)
    # The client has both at hand; it commits what it has given out.
    (message,) = take(consumer, 1)
    assert message.value["page"] == f"/product/{page}", f"{message.value} after the commit"
    consumer.commit()
    consumer.close()

# From the beginning once more.
consumer = KafkaConsumer("page_views", **{**with_commits, "group_id": "replay-group"})
while not consumer.assignment():
    consumer.poll(timeout_ms=100)
consumer.seek_to_beginning()
assert len(take(consumer, 102)) == 102
consumer.commit()
last = TopicPartition("page_views", metadata.partition)
consumer.seek(last, metadata.offset)
assert next(message for message in consumer if message.partition == last.partition).value["page"] == "/product/99"
consumer.close()


class OrderPartitioner:
    """All that begins with the same order id goes to one partition."""

    def __call__(self, key, all_partitions, available_partitions):
        return all_partitions[int(key.decode().split("-")[1]) % len(all_partitions)]


KafkaAdminClient(bootstrap_servers=[BOOTSTRAP]).create_topics([NewTopic("order_events", 4, 1)])
producer = KafkaProducer(
    bootstrap_servers=[BOOTSTRAP],
    key_serializer=lambda k: k.encode("utf-8"),
    value_serializer=lambda v: json.dumps(v).encode("utf-8"),
    partitioner=OrderPartitioner(),
)
for event in ("created", "paid", "shipped"):
    for order in (122, 123, 124):
        producer.send("order_events", key=f"order-{order}-{event}", value={"event": event})
producer.flush()
consumer = KafkaConsumer("order_events", bootstrap_servers=[BOOTSTRAP], auto_offset_reset="earliest")
found = defaultdict(list)
for message in take(consumer, 9):
    found[message.partition].append(message.key.decode())
events = ("created", "paid", "shipped")
assert found == {order % 4: [f"order-{order}-{event}" for event in events] for order in (122, 123, 124)}
