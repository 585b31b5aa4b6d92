"""The calls of usual boto3 programs, written for AWS, unchanged: only AWS_ENDPOINT_URL and credentials are set.

Their queue URLs are those of AWS, their calls those that introductions to SQS show: sending with attributes and delay, batches,
long polling, FIFO with deduplication, a dead letter queue.
"""

import json
import time

import boto3

QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789/my-queue"
FIFO_QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789/orders.fifo"

sqs = boto3.client("sqs")
sqs.create_queue(QueueName="my-queue")
sqs.create_queue(QueueName="orders.fifo", Attributes={"FifoQueue": "true"})

# The shortest program: send, receive, delete.
sqs.send_message(QueueUrl=QUEUE, MessageBody='{"order_id": 123}')
response = sqs.receive_message(QueueUrl=QUEUE)
for message in response.get("Messages", []):
    assert json.loads(message["Body"]) == {"order_id": 123}
    sqs.delete_message(QueueUrl=QUEUE, ReceiptHandle=message["ReceiptHandle"])
assert len(response["Messages"]) == 1
assert sqs.receive_message(QueueUrl=QUEUE).get("Messages", []) == []

# One with an attribute and a delay of as long as the other calls take, and longer; ten in a batch.
sent_at = time.monotonic()
response = sqs.send_message(
    QueueUrl=QUEUE,
    MessageBody=json.dumps({"order_id": "delayed", "action": "process"}),
    MessageAttributes={"Priority": {"DataType": "Number", "StringValue": "1"}},
    DelaySeconds=10,
)
delayed_id = response["MessageId"]
entries = [{"Id": str(i), "MessageBody": json.dumps({"order_id": str(i)})} for i in range(10)]
response = sqs.send_message_batch(QueueUrl=QUEUE, Entries=entries)
assert (len(response.get("Successful", [])), len(response.get("Failed", []))) == (10, 0)

# Order, each message once, in a group.
for action, attempt in (("create", 1), ("create", 1), ("pay", 1)):
    sqs.send_message(
        QueueUrl=FIFO_QUEUE,
        MessageBody=json.dumps({"order_id": "123", "action": action}),
        MessageDeduplicationId=f"order-123-{action}-attempt-{attempt}",
        MessageGroupId="order-123",
    )
response = sqs.receive_message(QueueUrl=FIFO_QUEUE, MaxNumberOfMessages=10)
assert [json.loads(message["Body"])["action"] for message in response["Messages"]] == ["create", "pay"]

# A dead letter queue for a queue that there is.
dlq_response = sqs.create_queue(
    QueueName="my-queue-dlq", Attributes={"MessageRetentionPeriod": str(14 * 24 * 60 * 60)}
)
dlq_url = dlq_response["QueueUrl"]
dlq_arn = sqs.get_queue_attributes(QueueUrl=dlq_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
policy = {"deadLetterTargetArn": dlq_arn, "maxReceiveCount": 5}
sqs.set_queue_attributes(QueueUrl=QUEUE, Attributes={"RedrivePolicy": json.dumps(policy)})
attributes = sqs.get_queue_attributes(QueueUrl=QUEUE, AttributeNames=["All"])["Attributes"]
assert json.loads(attributes["RedrivePolicy"]) == policy

# Long polling until all has come; the delayed one with its attribute, and not before its time. One order fails at first.
done, failures = [], 0
while len(done) < 11:
    assert time.monotonic() - sent_at < 40, f"only {done} came"
    response = sqs.receive_message(
        QueueUrl=QUEUE,
        MaxNumberOfMessages=10,
        WaitTimeSeconds=20,
        VisibilityTimeout=30 if failures else 2,
        MessageAttributeNames=["All"],
    )
    for message in response.get("Messages", []):
        body = json.loads(message["Body"])
        if body["order_id"] == "7" and not failures:
            failures += 1
            continue
        if body["order_id"] == "delayed":
            assert time.monotonic() - sent_at >= 9.9 and message["MessageId"] == delayed_id
            assert message["MessageAttributes"]["Priority"] == {"DataType": "Number", "StringValue": "1"}
        done.append(body["order_id"])
        sqs.delete_message(QueueUrl=QUEUE, ReceiptHandle=message["ReceiptHandle"])
assert sorted(done) == sorted([*map(str, range(10)), "delayed"]) and failures == 1
