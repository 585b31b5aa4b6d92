"""Kafka share consumers compete for records: released ones come again, rejected ones go to the dead letters.

The share group has the name of the queue, so it is one more door to it: the queue's visibility timeout, counts and dead
letters hold for it, and records from any Kafka producer are its messages.
"""

import os
import signal
import subprocess
import sys

from confluent_kafka import AcknowledgeType, Consumer, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ.get("BOOTSTRAP", "127.0.0.1:9092")}


def share_consumer():
    consumer = ShareConsumer({**BOOTSTRAP, "group.id": "images", "share.acknowledgement.mode": "explicit"})
    consumer.subscribe(["images"])
    return consumer


def crash_with_records():
    """A consumer that has taken records when it is killed."""
    records = share_consumer().poll(20)
    print(" ".join(record.value().decode() for record in records), flush=True)
    signal.pause()


def main():
    admin = AdminClient(BOOTSTRAP)
    settings = {"visibility.timeout.ms": "2000", "dead.letter.queue": "images.dead", "max.receive.count": "3"}
    config = {f"ottla.queue.{name}": value for name, value in settings.items()} | {"ottla.queue.enable": "true"}
    queues = [NewTopic("images.dead", 1, config={"ottla.queue.enable": "true"}), NewTopic("images", 2, config=config)]
    for made in admin.create_topics(queues).values():
        made.result()
    producer = Producer(BOOTSTRAP)
    for n in range(30):
        producer.produce("images", f"{n}.png")
    assert producer.flush(10) == 0

    crashing = subprocess.Popen([sys.executable, __file__, "crash"], stdout=subprocess.PIPE, text=True)
    lost = set(crashing.stdout.readline().split())
    assert lost, "the one that crashes got nothing"
    crashing.kill()

    done, released, again = set(), set(), set()
    with share_consumer() as one, share_consumer() as two:
        while len(done) < 29:
            for consumer in (one, two):
                for record in consumer.poll(1):
                    assert record.error() is None, record.error()
                    image = record.value().decode()
                    if image == "13.png":
                        consumer.acknowledge(record, AcknowledgeType.REJECT)
                    elif image == "7.png" and image not in released:
                        released.add(image)
                        consumer.acknowledge(record, AcknowledgeType.RELEASE)
                    else:
                        assert image not in done, f"{image} came again after it was done"
                        done.add(image)
                        again |= {image} if record.delivery_count() > 1 else set()
                        consumer.acknowledge(record)
                for failure in consumer.commit_sync(10).values():
                    assert failure is None, failure
    assert done == {f"{n}.png" for n in range(30)} - {"13.png"}
    assert again == (lost | released) - {"13.png"}, f"{again} came again, not {lost | released}"

    dead = Consumer({**BOOTSTRAP, "group.id": "audit", "auto.offset.reset": "earliest"})
    dead.subscribe(["images.dead"])
    letter = dead.poll(10)
    assert letter and letter.value() == b"13.png"
    assert dict(letter.headers())["ottla.dead-letter.queue"] == b"images"
    dead.close()


if __name__ == "__main__":
    crash_with_records() if sys.argv[1:] else main()
