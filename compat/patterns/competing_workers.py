"""Workers compete for tasks: what one had that crashed goes to another, and the broker's crash loses none.

A worker deletes a message when its task is done, and not before. One that crashes deletes nothing, so what it had is received
again, by another, when its visibility timeout is over.
"""

import json
import os
import signal
import subprocess
import sys
import time

import boto3

TASKS = 20

sqs = boto3.client("sqs")


def work(url, name):
    """Does tasks for ever, and tells of each, and how often it was received."""
    while True:
        answer = sqs.receive_message(
            QueueUrl=url, WaitTimeSeconds=20, MessageSystemAttributeNames=["ApproximateReceiveCount"]
        )
        for message in answer.get("Messages", []):
            task = json.loads(message["Body"])
            print(task["id"], message["Attributes"]["ApproximateReceiveCount"], flush=True)
            if name == "unlucky":
                signal.pause()
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def start_worker(url, name):
    return subprocess.Popen([sys.executable, __file__, url, name], stdout=subprocess.PIPE, text=True)


def is_empty(url):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return all(counts[name] == "0" for name in names)


def main():
    url = sqs.create_queue(QueueName="tasks", Attributes={"VisibilityTimeout": "3"})["QueueUrl"]
    for first in range(0, TASKS, 10):
        batch = [{"Id": str(n), "MessageBody": json.dumps({"id": n})} for n in range(first, first + 10)]
        assert len(sqs.send_message_batch(QueueUrl=url, Entries=batch)["Successful"]) == 10

    # One takes a task and is never heard of again, nor is the broker for a moment.
    unlucky = start_worker(url, "unlucky")
    lost = unlucky.stdout.readline().split()[0]
    unlucky.kill()
    subprocess.run([os.environ["BROKER"], "restart"], check=True)

    workers = [start_worker(url, name) for name in ("one", "two", "three")]
    deadline = time.monotonic() + 20
    while not is_empty(url):
        assert time.monotonic() < deadline, "there are tasks left"
        time.sleep(0.1)
    done = {}
    for worker in workers:
        worker.terminate()
        for line in worker.communicate()[0].splitlines():
            task, receives = line.split()
            assert task not in done, f"task {task} was done twice"
            done[task] = receives
    assert done == {str(n): "2" if str(n) == lost else "1" for n in range(TASKS)}, done


if __name__ == "__main__":
    work(*sys.argv[1:]) if sys.argv[1:] else main()
