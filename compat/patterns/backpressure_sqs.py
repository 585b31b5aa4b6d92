"""A full queue answers SQS and HTTP with a 429 that boto3 and urllib3 wait out by themselves; or it drops its oldest.

RequestThrottled is one of the errors that AWS's SDKs try again, later and later, as often as they are told.
"""

import os
import threading
import time

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError

ROOM = 5
QUEUES = os.environ.get("HTTP", "http://127.0.0.1:9464") + "/queues"

patient = boto3.client("sqs", config=Config(retries={"mode": "standard", "total_max_attempts": 10}))
impatient = boto3.client("sqs", config=Config(retries={"total_max_attempts": 1}))
http = urllib3.PoolManager()


def make_queue(name, **settings):
    settings = {"max.messages": ROOM} | settings
    assert http.request("POST", QUEUES, json={"name": name, "settings": settings}).status == 201
    return patient.get_queue_url(QueueName=name)["QueueUrl"]


def receive(url):
    """Receives and deletes a message, and returns its body; None if there is none."""
    for message in patient.receive_message(QueueUrl=url).get("Messages", []):
        patient.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return message["Body"]


url = make_queue("full")
for n in range(ROOM):
    patient.send_message(QueueUrl=url, MessageBody=str(n))

# Who does not wait is told at once, and in a batch which of it was refused.
try:
    impatient.send_message(QueueUrl=url, MessageBody="never")
    raise AssertionError("a full queue took a message")
except ClientError as refused:
    assert refused.response["Error"]["Code"] == "RequestThrottled"
    assert refused.response["ResponseMetadata"]["HTTPStatusCode"] == 429
assert receive(url) == "0"
entries = [{"Id": name, "MessageBody": name} for name in ("fits", "not")]
answer = patient.send_message_batch(QueueUrl=url, Entries=entries)
assert [entry["Id"] for entry in answer["Successful"]] == ["fits"]
failed = answer["Failed"][0]
assert (failed["Id"], failed["Code"], failed["SenderFault"]) == ("not", "RequestThrottled", False)

# Who waits gets through when there is room, after more than one attempt.
room = threading.Timer(1.5, receive, [url])
room.start()
answer = patient.send_message(QueueUrl=url, MessageBody="at last")
assert answer["ResponseMetadata"]["RetryAttempts"] > 0, "it was not full"
room.join()

# The same over plain HTTP.
messages = f"{QUEUES}/full/messages"
answer = http.request("POST", messages, json={"body": "never"}, retries=False)
assert answer.status == 429 and answer.json()["error"]["code"] == "queue_full"
again = urllib3.Retry(total=10, status_forcelist=[429], allowed_methods=["POST"], backoff_factor=0.1)
room = threading.Timer(1, receive, [url])
room.start()
answer = http.request("POST", messages, json={"body": "over HTTP"}, retries=again)
assert answer.status == 201 and answer.retries.history
room.join()
assert [receive(url) for _ in range(ROOM + 1)] == ["3", "4", "fits", "at last", "over HTTP", None]

# A queue of what is soon of no use takes all, and keeps the newest.
url = make_queue("newest", overflow="drop-oldest")
for n in range(3 * ROOM):
    impatient.send_message(QueueUrl=url, MessageBody=str(n))
time.sleep(0.1)
assert [receive(url) for _ in range(ROOM + 1)] == [*map(str, range(2 * ROOM, 3 * ROOM)), None]
