"""A queue's messages are records of a log: a consumer group replays them all, done ones too, while workers go on.

The analytics of half a year later start at the first record, then follow what is new; the workers never notice.
"""

import json
import os
import subprocess
import time

import boto3
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

BOOTSTRAP = os.environ.get("BOOTSTRAP", "127.0.0.1:9092")


def work_off(url, count):
    orders = []
    while len(orders) < count:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        assert "Messages" in answer, f"only {orders} came"
        for message in answer["Messages"]:
            orders.append(json.loads(message["Body"])["order"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return orders


def read(consumer, count):
    """So many orders, and where each lay."""
    found, deadline = {}, time.monotonic() + 15
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {found} were read"
        for records in consumer.poll(timeout_ms=500).values():
            found |= {record.value["order"]: (record.partition, record.offset) for record in records}
    return found


def analytics(group):
    return KafkaConsumer(
        "orders",
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        value_deserializer=json.loads,
    )


admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
admin.create_topics([NewTopic("orders", 3, 1, topic_configs={"ottla.queue.enable": "true"})])
sqs = boto3.client("sqs")
url = sqs.get_queue_url(QueueName="orders")["QueueUrl"]
producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, value_serializer=lambda value: json.dumps(value).encode())
for n in range(30):
    producer.send("orders", {"order": n, "total": n * 1.5})
producer.flush()
assert sorted(work_off(url, 30)) == list(range(30))

consumer = analytics("analytics")
places = read(consumer, 30)
assert sorted(places) == list(range(30))
consumer.commit()

# New ones come to both, each at its own pace, also when the broker has crashed in between.
subprocess.run([os.environ["BROKER"], "restart"], check=True)
sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"order": 30}))
assert list(read(consumer, 1)) == [30]
consumer.commit()
assert work_off(url, 1) == [30]

# There was a mistake in the analytics: once more, from the first record on, by the same group.
consumer.seek_to_beginning()
again = read(consumer, 31)
assert again.items() >= places.items(), "offsets have changed"
consumer.close()
assert "Messages" not in sqs.receive_message(QueueUrl=url), "a replay brought messages back"
