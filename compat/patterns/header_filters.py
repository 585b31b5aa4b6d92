"""Routing by headers: queues on one topic of which each gets only the records whose headers it asks for.

A term names a header that must be there (`fraud`), must not (`!test`), or must have one of some values (`region=eu|uk`); all
terms must hold. What a queue does not ask for, it passes over.
"""

import os
import subprocess

import boto3
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ.get("BOOTSTRAP", "127.0.0.1:9092")}

admin = AdminClient(BOOTSTRAP)
sqs = boto3.client("sqs")


def make_topic(name, config=None):
    for made in admin.create_topics([NewTopic(name, 2, config=config or {})]).values():
        made.result()


def work_off(queue):
    """What is in it, in order; it is deleted."""
    url, bodies = sqs.get_queue_url(QueueName=queue)["QueueUrl"], []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        for message in messages:
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(bodies)


make_topic("payments")
for queue, terms in {
    "europe": "region=eu|uk,!test",
    "fraud": "fraud",
    "rest": "region!=eu|uk,!test",
}.items():
    make_topic(queue, {"ottla.queue.enable": "true", "ottla.queue.source": "payments", "ottla.queue.filter": terms})

producer = Producer(BOOTSTRAP)
for body, headers in {
    "a": {"region": "eu"},
    "b": {"region": "uk", "fraud": "suspected"},
    "c": {"region": "us"},
    "d": {"region": "eu", "test": "1"},
    "e": {},
    "f": {"fraud": ""},
}.items():
    producer.produce("payments", body, headers=headers)
assert producer.flush(10) == 0

assert work_off("europe") == ["a", "b"]
subprocess.run([os.environ["BROKER"], "restart"], check=True)
assert work_off("fraud") == ["b", "f"]
assert work_off("rest") == ["c", "e", "f"]
assert work_off("europe") == []
