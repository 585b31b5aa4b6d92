"""A consumer that is killed after its work and before it says so gets the message again, and charges nobody twice.

The effect and the id of the message are written in one transaction of the consumer's own database: at-least-once delivery and
an idempotent consumer have the effect of exactly-once.
"""

import json
import os
import sqlite3
import subprocess
import sys

import boto3

sqs = boto3.client("sqs")


def charge(database, message):
    """Whether this was the first time."""
    payment = json.loads(message["Body"])
    with database:
        try:
            database.execute("INSERT INTO processed (message_id) VALUES (?)", (message["MessageId"],))
        except sqlite3.IntegrityError:
            return False
        change = (payment["amount"], payment["customer"])
        database.execute("UPDATE accounts SET balance = balance - ? WHERE customer = ?", change)
    return True


def consume(url, killed=False):
    """Charges what is there, and returns how much of it had been charged before."""
    database, duplicates = sqlite3.connect("bank.db"), 0
    while messages := sqs.receive_message(QueueUrl=url, WaitTimeSeconds=3).get("Messages"):
        if not charge(database, messages[0]):
            duplicates += 1
        if killed:
            os.kill(os.getpid(), 9)
        sqs.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
    return duplicates


def main():
    with sqlite3.connect("bank.db") as database:
        database.execute("CREATE TABLE processed (message_id TEXT PRIMARY KEY)")
        database.execute("CREATE TABLE accounts (customer TEXT PRIMARY KEY, balance INTEGER)")
        database.executemany("INSERT INTO accounts VALUES (?, 100)", [("alice",), ("bob",)])
    url = sqs.create_queue(QueueName="payments", Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
    for customer, amount in (("alice", 10), ("bob", 20), ("alice", 5), ("bob", 7)):
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"customer": customer, "amount": amount}))

    for _ in range(2):
        assert subprocess.run([sys.executable, __file__, url]).returncode == -9
        subprocess.run([os.environ["BROKER"], "restart"], check=True)
    duplicates = consume(url)
    # Nobody waited for the first lease to end, so the two that were killed may have had one message or two.
    assert duplicates in (1, 2), f"{duplicates} came again"
    assert dict(database.execute("SELECT customer, balance FROM accounts")) == {"alice": 85, "bob": 73}
    assert database.execute("SELECT count(*) FROM processed").fetchone() == (4,)


if __name__ == "__main__":
    consume(sys.argv[1], killed=True) if sys.argv[1:] else main()
