"""An outbox in the same database as the orders: a relay that is killed between sending and marking doubles no message.

Order and message are written in one transaction, so there is never one without the other. A relay sends what is not marked as
sent. Killed in between it sends again; the queue knows the id and drops the second.
"""

import json
import os
import sqlite3
import subprocess
import sys
import uuid

import boto3

ORDERS = 12

sqs = boto3.client("sqs")


def open_database():
    # Each statement is a transaction of its own, unless BEGIN says otherwise.
    return sqlite3.connect("shop.db", isolation_level=None)


def place_order(database, total):
    database.execute("BEGIN")
    order = database.execute("INSERT INTO orders (total) VALUES (?)", (total,)).lastrowid
    event = json.dumps({"event": "order.created", "order": order, "total": total})
    database.execute("INSERT INTO outbox (id, event) VALUES (?, ?)", (str(uuid.uuid4()), event))
    database.execute("COMMIT")


def relay(url, killed_after=None):
    """Sends what is in the outbox, in order, and marks it; with a number, is killed before it marks that one."""
    database = open_database()
    rows = database.execute("SELECT id, event FROM outbox WHERE NOT sent ORDER BY rowid").fetchall()
    for count, (event_id, event) in enumerate(rows, start=1):
        sqs.send_message(QueueUrl=url, MessageBody=event, MessageGroupId="orders", MessageDeduplicationId=event_id)
        if count == killed_after:
            os.kill(os.getpid(), 9)
        database.execute("UPDATE outbox SET sent = 1 WHERE id = ?", (event_id,))


def main():
    database = open_database()
    database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL)")
    database.execute("CREATE TABLE outbox (id TEXT PRIMARY KEY, event TEXT, sent INTEGER DEFAULT 0)")
    url = sqs.create_queue(QueueName="orders.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    for n in range(ORDERS):
        place_order(database, total=n + 0.5)
    # What is rolled back is sent no more than it is stored.
    database.execute("BEGIN")
    database.execute("INSERT INTO outbox (id, event) VALUES ('never', '{}')")
    database.execute("ROLLBACK")

    for killed_after in (5, 1):
        killed = subprocess.run([sys.executable, __file__, url, str(killed_after)])
        assert killed.returncode == -9, f"the relay ended with {killed.returncode}"
        # The ids are remembered over the broker's crash, too.
        subprocess.run([os.environ["BROKER"], "restart"], check=True)
    assert database.execute("SELECT count(*) FROM outbox WHERE sent").fetchone() == (4,)
    relay(url)
    assert database.execute("SELECT count(*) FROM outbox WHERE NOT sent").fetchone() == (0,)

    orders = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        for message in messages:
            orders.append(json.loads(message["Body"])["order"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert orders == list(range(1, ORDERS + 1)), f"orders came as {orders}"


if __name__ == "__main__":
    relay(sys.argv[1], int(sys.argv[2])) if sys.argv[1:] else main()
