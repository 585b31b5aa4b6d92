"""Order where it matters: the events of a customer one after the other, those of different customers side by side.

The message group is what must stay in order. While one of its messages is being worked on, nobody gets the next.
"""

import json
import os
import random
import subprocess
import threading
import time

import boto3

CUSTOMERS, EVENTS, WORKERS = 6, 5, 3

sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="events.fifo", Attributes={"FifoQueue": "true", "VisibilityTimeout": "2"})["QueueUrl"]
for n in range(EVENTS):
    entries = [
        {
            "Id": str(customer),
            "MessageBody": json.dumps({"customer": customer, "event": n}),
            "MessageGroupId": f"customer-{customer}",
            "MessageDeduplicationId": f"{customer}-{n}",
        }
        for customer in range(CUSTOMERS)
    ]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == CUSTOMERS

done, at_work, most_at_work, lock = [], set(), 0, threading.Lock()


def work():
    global most_at_work
    client, chance = boto3.client("sqs"), random.Random(7)
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=3).get("Messages"):
        event = json.loads(messages[0]["Body"])
        if event == {"customer": 2, "event": 1} and event not in given_up:
            # It fails once: nothing later of this customer may overtake it.
            given_up.append(event)
            continue
        with lock:
            assert event["customer"] not in at_work, "two events of a customer at the same time"
            at_work.add(event["customer"])
            most_at_work = max(most_at_work, len(at_work))
        time.sleep(chance.uniform(0.01, 0.05))
        with lock:
            at_work.remove(event["customer"])
            done.append((event["customer"], event["event"]))
        client.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])


given_up = []
subprocess.run([os.environ["BROKER"], "restart"], check=True)
workers = [threading.Thread(target=work) for _ in range(WORKERS)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert given_up and most_at_work > 1, "nothing failed, or nothing ran side by side"
for customer in range(CUSTOMERS):
    events = [event for whose, event in done if whose == customer]
    assert events == list(range(EVENTS)), f"events of customer {customer} came as {events}"
