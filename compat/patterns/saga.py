"""A saga: steps of several services, each by a message; when one fails, those before it are undone in reverse order.

The orchestrator keeps what has been done in its database before it asks for the next step. So one that is killed is followed by
another, which asks again; the services know the saga's id, and do and undo each step once.
"""

import json
import os
import sqlite3
import subprocess
import sys
import threading

import boto3

STEPS = [("inventory", "reserve", "release"), ("payment", "charge", "refund"), ("shipping", "create", "cancel")]

sqs = boto3.client("sqs")


def url_of(queue):
    return sqs.get_queue_url(QueueName=queue)["QueueUrl"]


def send(queue, **command):
    """The same command with the same words is sent once, however often it is asked for."""
    name = "-".join([command["saga"], command["action"]])
    sqs.send_message(
        QueueUrl=url_of(queue),
        MessageBody=json.dumps(command),
        MessageGroupId=command["saga"],
        MessageDeduplicationId=name,
    )


def receive(queue):
    """One message, and what deletes it; or None."""
    for message in sqs.receive_message(QueueUrl=url_of(queue), WaitTimeSeconds=1).get("Messages", []):
        receipt = message["ReceiptHandle"]
        return json.loads(message["Body"]), lambda: sqs.delete_message(QueueUrl=url_of(queue), ReceiptHandle=receipt)
    return None


def serve(service, log, over):
    """A service that does what it is told and says how that went. It cannot ship to the moon."""
    while not over.is_set():
        if found := receive(f"{service}.fifo"):
            command, delete = found
            log.append((command["saga"], service, command["action"]))
            ok = not (command["action"] == "create" and command["order"] == "moon")
            send("answers.fifo", saga=command["saga"], action=command["action"], ok=ok)
            delete()


def orchestrate(killed_at=None):
    """Moves all sagas on until each is done or undone."""
    database = sqlite3.connect("sagas.db", isolation_level=None)

    def ask(saga, order, step, forth):
        service, do, undo = STEPS[step]
        send(f"{service}.fifo", saga=saga, action=do if forth else undo, order=order)

    sagas = "SELECT id, customer_order, step, forth FROM sagas WHERE NOT over"
    for saga in database.execute(sagas).fetchall():
        ask(*saga)
    while database.execute(f"SELECT count(*) FROM ({sagas})").fetchone() != (0,):
        if not (found := receive("answers.fifo")):
            continue
        answer, delete = found
        row = database.execute(f"{sagas} AND id = ?", (answer["saga"],)).fetchone()
        # An answer that comes once more, to an orchestrator after the one that was killed, answers a step that is past.
        if row and answer["action"] == STEPS[row[2]][1 if row[3] else 2]:
            saga, order, step, forth = row
            # A failed step has done nothing, so what is undone begins before it.
            forth = forth and answer["ok"]
            step += 1 if forth else -1
            over = step in (-1, len(STEPS))
            update = "UPDATE sagas SET step = ?, forth = ?, over = ? WHERE id = ?"
            database.execute(update, (step, forth, over, saga))
            if step == killed_at:
                os.kill(os.getpid(), 9)
            if not over:
                ask(saga, order, step, forth)
        delete()


def main():
    with sqlite3.connect("sagas.db") as database:
        database.execute("CREATE TABLE sagas (id TEXT, customer_order TEXT, step INTEGER, forth INTEGER, over INTEGER)")
        sagas = [("s1", "town", 0, True, False), ("s2", "moon", 0, True, False)]
        database.executemany("INSERT INTO sagas VALUES (?, ?, ?, ?, ?)", sagas)
    for queue in [*(service for service, _, _ in STEPS), "answers"]:
        sqs.create_queue(QueueName=f"{queue}.fifo", Attributes={"FifoQueue": "true", "VisibilityTimeout": "2"})
    log, over = [], threading.Event()
    services = [threading.Thread(target=serve, args=(service, log, over)) for service, _, _ in STEPS]
    for service in services:
        service.start()
    assert subprocess.run([sys.executable, __file__, "killed"]).returncode == -9
    orchestrate()
    over.set()
    for service in services:
        service.join()
    did = {saga: [action for whose, _, action in log if whose == saga] for saga in ("s1", "s2")}
    assert did["s1"] == ["reserve", "charge", "create"], did
    assert did["s2"] == ["reserve", "charge", "create", "refund", "release"], did
    outcomes = database.execute("SELECT id, step FROM sagas ORDER BY id").fetchall()
    assert outcomes == [("s1", len(STEPS)), ("s2", -1)], outcomes


if __name__ == "__main__":
    orchestrate(killed_at=2) if sys.argv[1:] else main()
