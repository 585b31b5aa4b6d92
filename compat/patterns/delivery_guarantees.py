"""At most once, at least once, exactly once: the same crash of a consumer, and what becomes of its message each time.

Which of them it is, is the order of working and saying so; the last needs both written as one, which here is a database.
"""

import os
import sqlite3
import subprocess
import sys

import boto3
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ.get("BOOTSTRAP", "127.0.0.1:9092")}
SALES = [f"sale {n}" for n in range(6)]
# The one in whose midst the consumer dies.
FATAL = "sale 2"


def crash(body, dies):
    if dies and body == FATAL:
        os.kill(os.getpid(), 9)


def messages(url):
    """What is in the queue, one after the other, until there has been nothing for a while."""
    sqs = boto3.client("sqs")
    while found := sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages"):
        yield found[0], lambda: sqs.delete_message(QueueUrl=url, ReceiptHandle=found[0]["ReceiptHandle"])


def at_most_once(url, dies):
    """Says that it is done before it is: what a crash comes between is lost."""
    for message, delete in messages(url):
        delete()
        crash(message["Body"], dies)
        record(message["Body"])


def at_least_once(url, dies):
    """Says that it is done when it is: what a crash comes between is done twice."""
    for message, delete in messages(url):
        record(message["Body"])
        crash(message["Body"], dies)
        delete()


def exactly_once(_, dies):
    """Keeps the offset where the effect is, in one transaction, so a crash comes before both or after both."""
    with sqlite3.connect("effects.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS position (next INTEGER)")
        if database.execute("SELECT count(*) FROM position").fetchone() == (0,):
            database.execute("INSERT INTO position VALUES (0)")
    (position,) = database.execute("SELECT next FROM position").fetchone()
    consumer = Consumer({**BOOTSTRAP, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition("sales", 0, position)])
    while position < len(SALES):
        message = consumer.poll(10)
        assert message and not message.error()
        with database:
            database.execute("INSERT INTO effects VALUES (?)", (message.value().decode(),))
            crash(message.value().decode(), dies)
            position = message.offset() + 1
            database.execute("UPDATE position SET next = ?", (position,))
    consumer.close()


def record(body):
    with sqlite3.connect("effects.db") as database:
        database.execute("INSERT INTO effects VALUES (?)", (body,))


def effects_of(consume, url=""):
    """The effects of a consumer that crashes, and of the one after it."""
    with sqlite3.connect("effects.db") as database:
        database.execute("DROP TABLE IF EXISTS effects")
        database.execute("CREATE TABLE effects (body TEXT)")
    crashed = subprocess.run([sys.executable, __file__, consume.__name__, url])
    assert crashed.returncode == -9, f"{consume.__name__} ended with {crashed.returncode}"
    subprocess.run([os.environ["BROKER"], "restart"], check=True)
    consume(url, dies=False)
    return sorted(body for (body,) in database.execute("SELECT body FROM effects"))


def main():
    sqs = boto3.client("sqs")
    for consume, expected in (
        (at_most_once, [sale for sale in SALES if sale != FATAL]),
        (at_least_once, sorted([*SALES, FATAL])),
    ):
        name = consume.__name__.replace("_", "-")
        url = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
        for sale in SALES:
            sqs.send_message(QueueUrl=url, MessageBody=sale)
        effects = effects_of(consume, url)
        assert effects == expected, f"{name}: {effects}"

    admin = AdminClient(BOOTSTRAP)
    for made in admin.create_topics([NewTopic("sales", 1)]).values():
        made.result()
    # An idempotent producer: what it has to send again, after a lost answer say, is there once.
    producer = Producer({**BOOTSTRAP, "enable.idempotence": True})
    for sale in SALES:
        producer.produce("sales", sale)
    assert producer.flush(10) == 0
    effects = effects_of(exactly_once)
    assert effects == SALES, f"exactly-once: {effects}"


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], dies=True) if sys.argv[1:] else main()
