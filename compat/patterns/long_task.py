"""A task that takes longer than its lease: with heartbeats nobody else gets it, without them it is done twice.

A heartbeat extends the lease of what is being worked on. It stops with the worker, so the visibility timeout can be short: how
soon another takes over is no question of how long tasks take.
"""

import contextlib
import os
import subprocess
import threading
import time

import boto3
from botocore.exceptions import EndpointConnectionError

LEASE, TASK = 3, 5

sqs = boto3.client("sqs")


@contextlib.contextmanager
def heartbeats(url, message):
    """Extends the lease of a message again and again, well before it ends."""
    over = threading.Event()

    def beat():
        while not over.wait(LEASE / 4):
            extended = {"ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": LEASE}
            # The next one does it if the broker is away.
            with contextlib.suppress(EndpointConnectionError):
                sqs.change_message_visibility(QueueUrl=url, **extended)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()


def receive(url, seconds):
    """A message and the number of its delivery, or None."""
    answer = sqs.receive_message(
        QueueUrl=url, WaitTimeSeconds=seconds, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )
    for message in answer.get("Messages", []):
        return message, int(message["Attributes"]["ApproximateReceiveCount"])


url = sqs.create_queue(QueueName="videos", Attributes={"VisibilityTimeout": str(LEASE)})["QueueUrl"]

# With heartbeats, over a restart of the broker: for somebody else there is nothing in all that time.
sqs.send_message(QueueUrl=url, MessageBody="one.mp4")
message, _ = receive(url, 5)
began = time.monotonic()
with heartbeats(url, message):
    assert receive(url, 2) is None
    subprocess.run([os.environ["BROKER"], "restart"], check=True)
    while (left := TASK - (time.monotonic() - began)) > 0:
        assert receive(url, max(1, int(left))) is None, "it was lent twice"
sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
assert receive(url, LEASE + 1) is None

# Without, another worker has it meanwhile; the first one's delete comes too late to count.
sqs.send_message(QueueUrl=url, MessageBody="two.mp4")
first, _ = receive(url, 5)
second, deliveries = receive(url, LEASE + 2)
assert (second["MessageId"], deliveries) == (first["MessageId"], 2)
sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
# Who has it now gives it up, and it is still there.
sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)
third, deliveries = receive(url, 5)
assert (third["MessageId"], deliveries) == (first["MessageId"], 3)
