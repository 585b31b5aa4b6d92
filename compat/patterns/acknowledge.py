"""What a consumer may say of a message: done, alone or in a batch; again, now or later; longer; never.

What nothing is said of comes again when its time is over. What was answered as done never does, the broker's crash or not.
"""

import os
import subprocess
import time

import boto3

sqs = boto3.client("sqs")


def arn(url):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def receive(url, seconds=2, **more):
    """Messages by their bodies."""
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=seconds, **more)
    return {message["Body"]: message for message in answer.get("Messages", [])}


def hide(url, message, seconds):
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds)


url = sqs.create_queue(QueueName="steps", Attributes={"VisibilityTimeout": "2"})["QueueUrl"]
sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(10)])
taken = receive(url)
assert len(taken) == 10

# Done: one alone, five together. An entry that is wrong fails alone.
sqs.delete_message(QueueUrl=url, ReceiptHandle=taken["0"]["ReceiptHandle"])
entries = [{"Id": str(n), "ReceiptHandle": taken[str(n)]["ReceiptHandle"]} for n in range(1, 6)]
answer = sqs.delete_message_batch(QueueUrl=url, Entries=[*entries, {"Id": "wrong", "ReceiptHandle": "no receipt"}])
assert len(answer["Successful"]) == 5 and [failed["Id"] for failed in answer["Failed"]] == ["wrong"]

# 6 has failed for now and may be had at once, 7 in a second; 8 takes longer than was thought; 9 is forgotten.
began = time.monotonic()
hide(url, taken["6"], 0)
hide(url, taken["7"], 1)
hide(url, taken["8"], 6)
assert list(receive(url, VisibilityTimeout=20)) == ["6"]
assert list(receive(url, VisibilityTimeout=20)) == ["7"] and time.monotonic() - began >= 1
subprocess.run([os.environ["BROKER"], "restart"], check=True)
assert list(receive(url, seconds=3, VisibilityTimeout=20)) == ["9"]
assert list(receive(url, seconds=6)) == ["8"] and time.monotonic() - began >= 6
counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
assert counts["ApproximateNumberOfMessages"] == "0", "something came back that was done"
assert counts["ApproximateNumberOfMessagesNotVisible"] == "4"
