"""A full queue slows Kafka producers down: they wait, and send on when there is room; who will not wait is told.

librdkafka and kafka-python try again by themselves what a queue beyond max.messages refuses, in order, until delivery.timeout.
"""

import os
import time

import boto3
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaProducer

BOOTSTRAP = os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
ROOM = 10

sqs = boto3.client("sqs")
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def make_queue(name):
    config = {"ottla.queue.enable": "true", "ottla.queue.max.messages": str(ROOM)}
    for made in admin.create_topics([NewTopic(name, 1, config=config)]).values():
        made.result()
    return sqs.get_queue_url(QueueName=name)["QueueUrl"]


def work_off(url, count):
    """Receives and deletes so many messages and returns their bodies."""
    bodies, deadline = [], time.monotonic() + 20
    while len(bodies) < count:
        assert time.monotonic() < deadline, f"only {len(bodies)} came"
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages", []):
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def librdkafka_waits():
    url = make_queue("librdkafka")
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, "linger.ms": 0})
    delivered, refused = [], []

    def told(error, record):
        (refused if error else delivered).append(record.value().decode())

    for n in range(3 * ROOM):
        producer.produce("librdkafka", str(n), on_delivery=told)
        # One by one, so that the queue is filled to its brim.
        producer.flush(0.5 if n < ROOM else 0)
    producer.flush(1)
    assert len(delivered) == ROOM and not refused, f"{len(delivered)} delivered, {len(refused)} refused when it is full"
    bodies = work_off(url, 3 * ROOM)
    assert producer.flush(10) == 0 and not refused
    assert bodies == delivered == [str(n) for n in range(3 * ROOM)], bodies

    # One that gives up after a second.
    impatient = Producer({"bootstrap.servers": BOOTSTRAP, "delivery.timeout.ms": 1000, "linger.ms": 0})
    delivered.clear()
    for n in range(ROOM + 1):
        impatient.produce("librdkafka", f"late {n}", on_delivery=told)
        impatient.flush(5)
    assert refused == [f"late {ROOM}"], f"{refused} were refused"


def kafka_python_waits():
    url = make_queue("kafka-python")
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=0, retry_backoff_ms=50)
    for n in range(ROOM):
        producer.send("kafka-python", str(n).encode()).get(5)
    waiting = producer.send("kafka-python", b"beyond")
    time.sleep(1)
    assert not waiting.is_done, f"it does not wait: {waiting.exception}"
    assert work_off(url, ROOM + 1) == [*map(str, range(ROOM)), "beyond"]
    waiting.get(5)
    producer.close()


librdkafka_waits()
kafka_python_waits()
