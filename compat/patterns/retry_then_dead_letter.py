"""A task that fails is tried again later and later, then becomes a dead letter, which is mended and sent back.

The queue counts deliveries and waits between them (backoff.ms, doubled each time), over the broker's crash too; the worker
only says that it has failed, or that nobody can do this. Nothing else is held up.
"""

import os
import subprocess
import time

import boto3
import urllib3

QUEUES = os.environ.get("HTTP", "http://127.0.0.1:9464") + "/queues"

http = urllib3.PoolManager()


def call(method, path, body=None):
    answer = http.request(method, QUEUES + path, json=body)
    assert answer.status < 300, answer.data
    return answer.json()


def receive(queue, wait_ms=5000):
    """One message with all that is known of it, or None."""
    messages = call("POST", f"/{queue}/receive", {"wait_ms": wait_ms})["messages"]
    return messages[0] if messages else None


def settle(queue, message, action, **more):
    verdict = {"receipt": message["receipt"], "action": action, **more}
    assert call("POST", f"/{queue}/settle", {"receipts": [verdict]})["results"] == [{"settled": True}]


call("POST", "", {"name": "mail.dead"})
settings = {"dead.letter.queue": "mail.dead", "max.receive.count": 4, "backoff.ms": 400}
call("POST", "", {"name": "mail", "settings": settings})
for address in ("full@example.org", "one@example.org", "no address", "two@example.org"):
    call("POST", "/mail/messages", {"body": address})

times, sent = [], []
while len(times) < 4 or len(sent) < 2:
    message = receive("mail")
    assert message, f"attempts at {times}, sent {sent}"
    match message["body"]:
        case "full@example.org":
            # Not now. When then, is up to the queue.
            times.append(time.monotonic())
            assert message["deliveries"] == len(times)
            settle("mail", message, "release")
            if len(times) == 2:
                subprocess.run([os.environ["BROKER"], "restart"], check=True)
        case "no address":
            settle("mail", message, "reject")
        case address:
            assert len(times) == 1, "it was held up by one that failed"
            sent.append(address)
            settle("mail", message, "acknowledge")
assert sent == ["one@example.org", "two@example.org"]
waits = [after - before for before, after in zip(times, times[1:])]
assert all(wait >= least for wait, least in zip(waits, (0.4, 0.8, 1.6), strict=True)), f"waited {waits} s"

letters = {}
while len(letters) < 2:
    letter = receive("mail.dead")
    assert letter, f"only {letters.keys()} became dead letters"
    letters[letter["body"]] = letter
    assert letter["headers"]["ottla.dead-letter.queue"] == "mail"
reasons = {body: letter["headers"]["ottla.dead-letter.reason"] for body, letter in letters.items()}
assert reasons == {"full@example.org": "max-receive-count", "no address": "rejected"}

# There is room in that mailbox now, so back with it.
settle("mail.dead", letters["no address"], "acknowledge")
settle("mail.dead", letters["full@example.org"], "release", after_ms=0)
sqs = boto3.client("sqs")
dead = sqs.get_queue_url(QueueName="mail.dead")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
sqs.start_message_move_task(SourceArn=arn)
message = receive("mail")
assert message["body"] == "full@example.org"
settle("mail", message, "acknowledge")
assert receive("mail.dead", wait_ms=0) is None and receive("mail", wait_ms=500) is None
