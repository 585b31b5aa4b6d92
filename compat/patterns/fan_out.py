"""Fan-out: three queues bound to one topic each get every event, work at their own pace, and copy none of it.

A service more needs no change in the one that publishes: its queue names the topic as its source, and begins with what the
topic still has.
"""

import json
import os
import subprocess

import boto3
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ.get("BOOTSTRAP", "127.0.0.1:9092")}
ORDERS = 20

admin = AdminClient(BOOTSTRAP)
sqs = boto3.client("sqs")


def make_queue(name, **settings):
    config = {"ottla.queue.enable": "true", "ottla.queue.source": "orders"}
    config |= {f"ottla.queue.{setting}": value for setting, value in settings.items()}
    for made in admin.create_topics([NewTopic(name, 1, config=config)]).values():
        made.result()


def publish(first, last):
    producer = Producer(BOOTSTRAP)
    for n in range(first, last):
        producer.produce("orders", json.dumps({"event": "order.created", "order": n}), key=str(n))
    assert producer.flush(10) == 0


def work_off(queue, count):
    """So many orders of a queue, worked on one after the other."""
    url, orders = sqs.get_queue_url(QueueName=queue)["QueueUrl"], []
    while len(orders) < count:
        messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages")
        assert messages, f"{queue} got only {orders}"
        orders.append(json.loads(messages[0]["Body"])["order"])
        sqs.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
    return orders


def is_empty(queue):
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    return "Messages" not in sqs.receive_message(QueueUrl=url)


for made in admin.create_topics([NewTopic("orders", 3)]).values():
    made.result()
make_queue("payment")
make_queue("shipping")
publish(0, ORDERS)

# Payment is through, and shipping at its first, when the broker crashes.
assert sorted(work_off("payment", ORDERS)) == list(range(ORDERS))
shipped = work_off("shipping", 1)
subprocess.run([os.environ["BROKER"], "restart"], check=True)
assert is_empty("payment")

# A service more, later: it gets what has been, and all three what is new.
make_queue("analytics")
publish(ORDERS, ORDERS + 5)
assert sorted(shipped + work_off("shipping", ORDERS + 4)) == list(range(ORDERS + 5))
assert sorted(work_off("payment", 5)) == list(range(ORDERS, ORDERS + 5))
assert sorted(work_off("analytics", ORDERS + 5)) == list(range(ORDERS + 5))
assert is_empty("payment") and is_empty("shipping") and is_empty("analytics")

# The events are in their topic once, and nowhere else.
reader = Consumer({**BOOTSTRAP, "group.id": "unused"})
ends = [reader.get_watermark_offsets(TopicPartition("orders", partition))[1] for partition in range(3)]
assert sum(ends) == ORDERS + 5
for queue in ("payment", "shipping", "analytics"):
    assert reader.get_watermark_offsets(TopicPartition(queue, 0)) == (0, 0), f"{queue} has records of its own"
reader.close()
