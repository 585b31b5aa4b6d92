"""As many workers as there is work: more when the queue grows long, fewer when it is short, none killed at work.

The depth of a queue is exact here, so what is decided by it need not wait for averages.
"""

import threading
import time

import boto3

TARGET_PER_WORKER, MOST_WORKERS, TASKS = 10, 5, 60


class Worker(threading.Thread):
    """Works until it is told to stop, and then finishes what it has in hand."""

    def __init__(self, url, done):
        super().__init__()
        self.sqs, self.url, self.done, self.stopping = boto3.client("sqs"), url, done, threading.Event()
        self.start()

    def run(self):
        while not self.stopping.is_set():
            for message in self.sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=1).get("Messages", []):
                time.sleep(0.1)
                self.done.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])


sqs = boto3.client("sqs")
url = sqs.create_queue(QueueName="thumbnails")["QueueUrl"]
for first in range(0, TASKS, 10):
    entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(first, first + 10)]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10


def depth():
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


assert depth() == TASKS
workers, stopped, done, sizes = [], [], [], []
deadline = time.monotonic() + 30
while len(done) < TASKS:
    assert time.monotonic() < deadline, f"{len(done)} of {TASKS} are done"
    wanted = min(MOST_WORKERS, max(1, -(-depth() // TARGET_PER_WORKER)))
    while len(workers) < wanted:
        workers.append(Worker(url, done))
    while len(workers) > wanted:
        stopped.append(workers.pop())
        stopped[-1].stopping.set()
    sizes.append(len(workers))
    time.sleep(0.1)
for worker in workers:
    worker.stopping.set()
for worker in workers + stopped:
    worker.join()
assert max(sizes) == MOST_WORKERS and sizes[-1] == 1, f"workers: {sizes}"
assert sorted(done, key=int) == [str(n) for n in range(TASKS)], "something was done twice or not at all"
