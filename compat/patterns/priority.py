"""Urgent messages first: a header of any Kafka producer says how urgent, and the rest is not starved.

The highest priority is received first, and every tenth message is one of the lowest.
"""

import os

import boto3
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ.get("BOOTSTRAP", "127.0.0.1:9092")}

config = {"ottla.queue.enable": "true", "ottla.queue.priorities": "3"}
admin = AdminClient(BOOTSTRAP)
for made in admin.create_topics([NewTopic("mail", 1, config=config)]).values():
    made.result()

producer = Producer(BOOTSTRAP)
for n in range(30):
    producer.produce("mail", f"newsletter {n}")
for n in range(30):
    producer.produce("mail", f"receipt {n}", headers={"ottla.priority": "1"})
for n in range(30):
    producer.produce("mail", f"password reset {n}", headers={"ottla.priority": "2"})
assert producer.flush(10) == 0

sqs = boto3.client("sqs")
url = sqs.get_queue_url(QueueName="mail")["QueueUrl"]
order = []
while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages"):
    order.append(messages[0]["Body"].rsplit(" ", 1)[0])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])

assert len(order) == 90
assert order[0] == "password reset"
last_reset = max(n for n, kind in enumerate(order) if kind == "password reset")
last_receipt = max(n for n, kind in enumerate(order) if kind == "receipt")
assert last_reset < last_receipt < 89, "the urgent ones are not through first"
between = order[: last_reset + 1].count("newsletter")
assert 2 <= between <= 4, f"{between} newsletters beside 30 password resets"
