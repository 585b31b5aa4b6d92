"""Request and reply over two queues, matched by correlation id; both outlive the crash of the broker.

A request says where its reply goes, and which request that answers. The requester waits for a limited time.
"""

import json
import os
import subprocess
import threading
import time
import uuid

import boto3


class Requester:
    """Has a reply queue of its own, so that nobody else takes its replies."""

    def __init__(self, requests):
        self.sqs = boto3.client("sqs")
        self.requests = requests
        self.replies = self.sqs.create_queue(QueueName=f"replies-{uuid.uuid4()}")["QueueUrl"]
        self.early = {}

    def send(self, question):
        correlation_id = str(uuid.uuid4())
        attributes = {"correlation-id": correlation_id, "reply-to": self.replies}
        self.sqs.send_message(
            QueueUrl=self.requests, MessageBody=json.dumps(question), MessageAttributes=strings(attributes)
        )
        return correlation_id

    def reply(self, correlation_id, seconds):
        """The reply to that request, or None if none comes in time. Replies to others are kept for them."""
        deadline = time.monotonic() + seconds
        while correlation_id not in self.early:
            left = int(deadline - time.monotonic())
            if left < 0:
                return None
            answer = self.sqs.receive_message(
                QueueUrl=self.replies, WaitTimeSeconds=min(left, 20), MessageAttributeNames=["correlation-id"]
            )
            for message in answer.get("Messages", []):
                self.early[attribute(message, "correlation-id")] = json.loads(message["Body"])
                self.sqs.delete_message(QueueUrl=self.replies, ReceiptHandle=message["ReceiptHandle"])
        return self.early.pop(correlation_id)


def serve(requests, count):
    """Adds numbers. First the reply, then the delete: a crash in between makes a second reply, not none."""
    sqs = boto3.client("sqs")
    while count:
        answer = sqs.receive_message(QueueUrl=requests, WaitTimeSeconds=10, MessageAttributeNames=["All"])
        for message in answer.get("Messages", []):
            sqs.send_message(
                QueueUrl=attribute(message, "reply-to"),
                MessageBody=json.dumps(sum(json.loads(message["Body"]))),
                MessageAttributes=strings({"correlation-id": attribute(message, "correlation-id")}),
            )
            sqs.delete_message(QueueUrl=requests, ReceiptHandle=message["ReceiptHandle"])
            count -= 1


def strings(values):
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items()}


def attribute(message, name):
    return message["MessageAttributes"][name]["StringValue"]


requests = boto3.client("sqs").create_queue(QueueName="sums")["QueueUrl"]
one, two = Requester(requests), Requester(requests)
questions = {one.send([n, 1]): n + 1 for n in range(5)}
other = two.send([20, 22])
assert one.reply(next(iter(questions)), 1) is None, "nobody serves yet"

subprocess.run([os.environ["BROKER"], "restart"], check=True)
server = threading.Thread(target=serve, args=(requests, 6))
server.start()
# Asked for in another order than they were sent.
for correlation_id, sum_of_both in reversed(questions.items()):
    assert one.reply(correlation_id, 10) == sum_of_both
assert two.reply(other, 10) == 42
server.join()
assert one.early == {} and two.early == {}, "replies that nobody has asked for"
