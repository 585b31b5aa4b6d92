"""boto3's SQS client: every action, the rules of each, and what a crash of the broker leaves."""

import json
import os
import socket
import threading
import time
import uuid

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import suite
from suite import broker, equal, run, within

PROTOCOL = os.environ["PROTOCOL"]
ENDPOINT = os.environ["AWS_ENDPOINT_URL_SQS"]
ACCOUNT = "000000000000"
REGION = "us-east-1"
SECONDS = 30


def test(sentence, **kind):
    """The suite runs once for each protocol, which its lines tell."""
    return suite.test(f"{sentence} ({PROTOCOL})", **kind)


def client(**settings):
    config = Config(retries={"max_attempts": 1}, read_timeout=60)
    return boto3.client("sqs", **{"endpoint_url": ENDPOINT, "region_name": REGION, "config": config, **settings})


sqs = client()


def fresh(suffix=""):
    return f"q-{uuid.uuid4().hex[:12]}{suffix}"


def create(attributes=None, suffix="", **more):
    return sqs.create_queue(QueueName=fresh(suffix), Attributes=attributes or {}, **more)["QueueUrl"]


def create_fifo(**attributes):
    return create({"FifoQueue": "true", **attributes}, ".fifo")


def attributes(url, *names):
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names or ["All"]))
    return found.get("Attributes", {})


def arn(url):
    return attributes(url, "QueueArn")["QueueArn"]


def name_of(url):
    return url.rsplit("/", 1)[1]


def receive(url, count=1, **more):
    """Up to so many messages, which may take several calls."""
    found = []
    for _ in within(SECONDS, f"{count} messages come"):
        wanted = min(10, count - len(found))
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=wanted, WaitTimeSeconds=1, **more)
        found += answer.get("Messages", [])
        if len(found) >= count:
            return found


def bodies(messages):
    return [message["Body"] for message in messages]


def is_empty(url):
    equal("Messages" in sqs.receive_message(QueueUrl=url), False, "whether there are messages")


def delete(url, *messages):
    for message in messages:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def counts(url):
    names = ["", "NotVisible", "Delayed"]
    found = attributes(url, *(f"ApproximateNumberOfMessages{name}" for name in names))
    return [int(found[f"ApproximateNumberOfMessages{name}"]) for name in names]


def refused(code, call, *args, **kwargs):
    """The message of the error with which the call is refused."""
    try:
        call(*args, **kwargs)
    except ClientError as error:
        equal(error.response["Error"]["Code"], code, "the error code")
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} was expected")


@test("queues are made, found, listed and deleted")
def queues():
    name = fresh()
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    equal(url, f"{ENDPOINT}/{ACCOUNT}/{name}", "the URL")
    equal(sqs.create_queue(QueueName=name)["QueueUrl"], url, "the URL, again")
    equal(sqs.get_queue_url(QueueName=name)["QueueUrl"], url, "the URL that is found")
    equal(sqs.list_queues(QueueNamePrefix=name[:9])["QueueUrls"], [url], "the list")
    equal("QueueUrls" in sqs.list_queues(QueueNamePrefix="nothing-has-this-name"), False, "an empty list")
    sqs.delete_queue(QueueUrl=url)
    gone = "AWS.SimpleQueueService.NonExistentQueue"
    refused(gone, sqs.get_queue_url, QueueName=name)
    refused(gone, sqs.delete_queue, QueueUrl=url)
    refused(gone, sqs.send_message, QueueUrl=url, MessageBody="x")
    try:
        sqs.receive_message(QueueUrl=url)
        raise AssertionError("there is no such queue")
    except sqs.exceptions.QueueDoesNotExist:
        pass


@test("a list of queues comes in pages")
def pages():
    prefix = fresh()
    urls = [sqs.create_queue(QueueName=f"{prefix}-{n}")["QueueUrl"] for n in range(5)]
    found, token = [], None
    for _ in range(3):
        more = {"NextToken": token} if token else {}
        page = sqs.list_queues(QueueNamePrefix=prefix, MaxResults=2, **more)
        found += page["QueueUrls"]
        token = page.get("NextToken")
    equal(found, urls, "the queues of all pages")
    equal(token, None, "the token after the last page")
    paginator = sqs.get_paginator("list_queues")
    listed = [url for page in paginator.paginate(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2}) for url in page["QueueUrls"]]
    equal(listed, urls, "the queues that the paginator finds")


@test("a fresh queue has the attributes of one of Amazon's")
def fresh_attributes():
    began = int(time.time())
    found = attributes(create())
    times = [int(found.pop(name)) for name in ("CreatedTimestamp", "LastModifiedTimestamp")]
    equal(all(began - 1 <= at <= time.time() + 1 for at in times), True, "whether the times are of now")
    equal(found.pop("QueueArn").rsplit(":", 1)[0], f"arn:aws:sqs:{REGION}:{ACCOUNT}", "the beginning of the ARN")
    expected = {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "DelaySeconds": "0",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "true",
        "VisibilityTimeout": "30",
    }
    equal(found, expected, "the attributes")
    fifo = attributes(create_fifo())
    more = ["ContentBasedDeduplication", "DeduplicationScope", "FifoQueue", "FifoThroughputLimit"]
    equal(sorted(set(fifo) - set(expected) - {"CreatedTimestamp", "LastModifiedTimestamp", "QueueArn"}), more, "what a FIFO queue has more")
    equal(attributes(create(), "DelaySeconds"), {"DelaySeconds": "0"}, "the one that was asked for")
    equal("Attributes" in sqs.get_queue_attributes(QueueUrl=create()), False, "attributes that nobody asked for")


@test("attributes are set and read back, and taken away by empty ones")
def set_attributes():
    url, dead = create(), arn(create())
    given = {
        "DelaySeconds": "1",
        "MaximumMessageSize": "2048",
        "MessageRetentionPeriod": "1209600",
        "ReceiveMessageWaitTimeSeconds": "2",
        "VisibilityTimeout": "43200",
        "KmsMasterKeyId": "alias/key",
        "KmsDataKeyReusePeriodSeconds": "60",
        "Policy": json.dumps({"Version": "2012-10-17", "Statement": []}),
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 7}),
        "RedriveAllowPolicy": json.dumps({"redrivePermission": "denyAll"}),
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes=given)
    found = attributes(url, *given)
    equal(json.loads(found.pop("RedrivePolicy")), json.loads(given.pop("RedrivePolicy")), "the redrive policy")
    equal(found, given, "the other attributes")
    equal(attributes(url, "SqsManagedSseEnabled"), {"SqsManagedSseEnabled": "false"}, "encryption by SQS beside a key")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": "", "Policy": ""})
    equal(attributes(url, "RedrivePolicy", "Policy"), {}, "what was taken away")
    found = sqs.create_queue(QueueName=name_of(url), Attributes={"VisibilityTimeout": "43200"})
    equal(found["QueueUrl"], url, "a queue made again with what it has")
    message = refused("QueueAlreadyExists", sqs.create_queue, QueueName=name_of(url), Attributes={"VisibilityTimeout": "5"})
    equal("different value for attribute VisibilityTimeout" in message, True, f"whether {message} names the attribute")


@test("wrong attributes are refused in Amazon's words")
def wrong_attributes():
    url = create()
    for name, value, code, words in [
        ("VisibilityTimeout", "43201", "InvalidAttributeValue", "Invalid value for the parameter VisibilityTimeout."),
        ("Nonsense", "1", "InvalidAttributeName", "Unknown Attribute Nonsense."),
        ("FifoQueue", "true", "InvalidAttributeName", "Unknown Attribute FifoQueue."),
        ("RedrivePolicy", "{", "InvalidParameterValue", "Redrive policy is not a valid JSON map."),
    ]:
        message = refused(code, sqs.set_queue_attributes, QueueUrl=url, Attributes={name: value})
        equal(message.endswith(words), True, f"whether {message!r} is right")
    refused("InvalidAttributeName", sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["Nonsense"])
    refused("InvalidParameterValue", sqs.create_queue, QueueName="no queue has blanks")
    refused("InvalidParameterValue", sqs.create_queue, QueueName=fresh(), Attributes={"FifoQueue": "true"})
    missing = json.dumps({"deadLetterTargetArn": arn(url) + "-none", "maxReceiveCount": 1})
    refused("InvalidParameterValue", sqs.set_queue_attributes, QueueUrl=url, Attributes={"RedrivePolicy": missing})


@test("a message comes back as it was sent, and boto3 finds its digests right")
def round_trip():
    url = create()
    body = "line\r\n<&>\"' \t ünï 😀 " * 100
    sent = sqs.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={
            "text": {"DataType": "String", "StringValue": "ü\r\n<&>"},
            "number": {"DataType": "Number.int", "StringValue": "12.5"},
            "bytes": {"DataType": "Binary.png", "BinaryValue": b"\x00\xff\x1e"},
        },
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3f"}},
    )
    equal(sorted(set(sent) - {"ResponseMetadata"}), ["MD5OfMessageAttributes", "MD5OfMessageBody", "MD5OfMessageSystemAttributes", "MessageId"], "the answer")
    equal(len(sent["ResponseMetadata"]["RequestId"]), 36, "the length of the request id")
    (message,) = receive(url, AttributeNames=["All"], MessageAttributeNames=["All"])
    equal(message["Body"], body, "the body")
    equal(message["MessageId"], sent["MessageId"], "the id")
    equal(message["MD5OfMessageAttributes"], sent["MD5OfMessageAttributes"], "the digest")
    found = {name: (value["DataType"], value.get("StringValue", value.get("BinaryValue"))) for name, value in message["MessageAttributes"].items()}
    expected = {"text": ("String", "ü\r\n<&>"), "number": ("Number.int", "12.5"), "bytes": ("Binary.png", b"\x00\xff\x1e")}
    equal(found, expected, "the attributes")
    system = message["Attributes"]
    equal(system["AWSTraceHeader"], "Root=1-5759e988-bd862e3f", "the trace")
    equal(system["ApproximateReceiveCount"], "1", "the count of receives")
    equal(abs(int(system["SentTimestamp"]) / 1000 - time.time()) < 60, True, "whether it was sent now")
    equal(sorted(system), ["AWSTraceHeader", "ApproximateFirstReceiveTimestamp", "ApproximateReceiveCount", "SenderId", "SentTimestamp"], "the system attributes")
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    (message,) = receive(url, MessageAttributeNames=["te.*"], AttributeNames=["ApproximateReceiveCount"])
    equal(list(message["MessageAttributes"]), ["text"], "the attributes that were asked for")
    equal(message["Attributes"], {"ApproximateReceiveCount": "2"}, "the system attribute that was asked for")
    delete(url, message)
    equal(counts(url), [0, 0, 0], "the counts")


@test("a batch is sent, received and deleted, and an entry that fails spoils no other")
def batches():
    url = create({"MaximumMessageSize": "1024"})
    entries = [{"Id": str(n), "MessageBody": "x" * (1025 if n == 3 else 10)} for n in range(10)]
    sent = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    equal([entry["Id"] for entry in sent["Successful"]], ["0", "1", "2", "4", "5", "6", "7", "8", "9"], "what was sent")
    (failed,) = sent["Failed"]
    equal((failed["Id"], failed["SenderFault"], failed["Code"]), ("3", True, "InvalidParameterValue"), "what was not")
    messages = receive(url, 9)
    equal(counts(url), [0, 9, 0], "the counts")
    handles = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
    changed = sqs.change_message_visibility_batch(QueueUrl=url, Entries=[{**handle, "VisibilityTimeout": 60} for handle in handles])
    equal(len(changed["Successful"]), 9, "how many were changed")
    deleted = sqs.delete_message_batch(QueueUrl=url, Entries=[*handles, {"Id": "bad", "ReceiptHandle": "no handle"}])
    equal(len(deleted["Successful"]), 9, "how many were deleted")
    equal([(entry["Id"], entry["Code"]) for entry in deleted["Failed"]], [("bad", "ReceiptHandleIsInvalid")], "what was not")
    equal(counts(url), [0, 0, 0], "the counts")


@test("a batch that is none is refused as a whole")
def wrong_batches():
    url = create()
    prefix = "AWS.SimpleQueueService."
    for code, entries in [
        (prefix + "TooManyEntriesInBatchRequest", [{"Id": str(n), "MessageBody": "x"} for n in range(11)]),
        (prefix + "BatchEntryIdsNotDistinct", [{"Id": "a", "MessageBody": "x"}] * 2),
        (prefix + "InvalidBatchEntryId", [{"Id": "a b", "MessageBody": "x"}]),
        (prefix + "BatchRequestTooLong", [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]),
    ]:
        refused(code, sqs.send_message_batch, QueueUrl=url, Entries=entries)
    empty = client(config=Config(parameter_validation=False, retries={"max_attempts": 1}))
    refused(prefix + "EmptyBatchRequest", empty.send_message_batch, QueueUrl=url, Entries=[])
    equal(counts(url), [0, 0, 0], "the counts")


@test("wrong messages and numbers are refused in Amazon's words")
def wrong_messages():
    url = create()
    for code, words, call, parameters in [
        ("MissingParameter", "MessageBody.", sqs.send_message, {"MessageBody": ""}),
        ("InvalidMessageContents", "", sqs.send_message, {"MessageBody": "\u0001" if PROTOCOL == "json" else "\ufffe"}),
        ("InvalidParameterValue", "Message must be shorter than 1048576 bytes.", sqs.send_message, {"MessageBody": "x" * 1_048_577}),
        ("InvalidParameterValue", "DelaySeconds must be >= 0 and <= 900.", sqs.send_message, {"MessageBody": "x", "DelaySeconds": 901}),
        ("InvalidParameterValue", "Must be between 1 and 10, if provided.", sqs.receive_message, {"MaxNumberOfMessages": 11}),
        ("InvalidParameterValue", "Must be >= 0 and <= 20, if provided.", sqs.receive_message, {"WaitTimeSeconds": 21}),
        ("ReceiptHandleIsInvalid", 'The input receipt handle "x" is not a valid receipt handle.', sqs.delete_message, {"ReceiptHandle": "x"}),
    ]:
        message = refused(code, call, QueueUrl=url, **parameters)
        equal(message.endswith(words), True, f"whether {message!r} is right")
    try:
        sqs.delete_message(QueueUrl=url, ReceiptHandle="x")
    except sqs.exceptions.ReceiptHandleIsInvalid:
        pass
    sqs.send_message(QueueUrl=url, MessageBody="x" * 1_048_576)
    equal(len(receive(url)[0]["Body"]), 1_048_576, "the size of the largest message")


@test("a message that is not deleted comes back when its time is over", waits=True)
def visibility():
    url = create({"VisibilityTimeout": "2"})
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (first,) = receive(url)
    began = time.monotonic()
    is_empty(url)
    (second,) = receive(url, AttributeNames=["ApproximateReceiveCount"])
    equal(1.5 < time.monotonic() - began < 15, True, "whether it came back in time")
    equal(second["Attributes"]["ApproximateReceiveCount"], "2", "the count of receives")
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=600)
    # Somebody else has it: the old handle neither deletes nor changes it.
    delete(url, first)
    stale = {"QueueUrl": url, "ReceiptHandle": first["ReceiptHandle"], "VisibilityTimeout": 0}
    refused("InvalidParameterValue", sqs.change_message_visibility, **stale)
    equal(counts(url), [0, 1, 0], "the counts")
    delete(url, second, second)
    equal(counts(url), [0, 0, 0], "the counts")
    gone = {"QueueUrl": url, "ReceiptHandle": second["ReceiptHandle"], "VisibilityTimeout": 0}
    message = refused("InvalidParameterValue", sqs.change_message_visibility, **gone)
    equal("Message does not exist or is not available" in message, True, f"whether {message!r} says so")


@test("a long poll ends when a message comes, and without one when its time is over", waits=True)
def long_poll():
    url = create()
    began = time.monotonic()
    equal("Messages" in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1), False, "whether there are messages")
    equal(time.monotonic() - began >= 0.9, True, "whether the poll has waited")
    sender = threading.Timer(0.5, client().send_message, kwargs={"QueueUrl": url, "MessageBody": "late"})
    sender.start()
    began = time.monotonic()
    found = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)
    equal(bodies(found["Messages"]), ["late"], "what came")
    equal(time.monotonic() - began < 10, True, "whether it came at once")
    sender.join()


@test("who goes away while waiting is not handed a message", waits=True)
def gone_receiver():
    # Signed by boto3, sent by a socket that closes before there is anything.
    url = create()
    caught = []
    other = client()

    def catch(request, **_):
        caught.append(request)
        raise KeyboardInterrupt

    other.meta.events.register("before-send.sqs.ReceiveMessage", catch)
    try:
        other.receive_message(QueueUrl=url, WaitTimeSeconds=20)
    except KeyboardInterrupt:
        pass
    (request,) = caught
    body = request.body.encode() if isinstance(request.body, str) else request.body
    host, port = ENDPOINT.split("//")[1].split(":")
    path = "/" + request.url.split("/", 3)[3]
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
    headers.update({"Host": f"{host}:{port}", "Content-Length": str(len(body))})
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    for _ in range(5):
        with socket.create_connection((host, int(port))) as waiting:
            waiting.sendall(head.encode() + b"\r\n" + body)
            waiting.settimeout(0.3)
            try:
                raise AssertionError(f"an empty queue has answered {waiting.recv(200)}")
            except TimeoutError:
                pass
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (message,) = receive(url, AttributeNames=["ApproximateReceiveCount"])
    equal(message["Attributes"]["ApproximateReceiveCount"], "1", "the count of receives")


@test("a delayed message comes when its delay is over, and holds up no other", waits=True)
def delays():
    url = create({"DelaySeconds": "2"})
    began = time.monotonic()
    sqs.send_message(QueueUrl=url, MessageBody="queue's delay")
    sqs.send_message(QueueUrl=url, MessageBody="own delay", DelaySeconds=900)
    sqs.send_message(QueueUrl=url, MessageBody="none", DelaySeconds=0)
    equal(counts(url), [1, 0, 2], "the counts")
    messages = receive(url, 2)
    equal(bodies(messages), ["none", "queue's delay"], "what came")
    equal(1.5 < time.monotonic() - began < 15, True, "whether it came in time")
    equal(counts(url), [0, 2, 1], "the counts")


@test("a FIFO queue keeps the order of each group, and gives nothing of a group that somebody has")
def fifo():
    url = create_fifo()
    numbers = []
    for n in range(6):
        sent = sqs.send_message(QueueUrl=url, MessageBody=f"{'ab'[n % 2]}{n // 2}", MessageGroupId="ab"[n % 2], MessageDeduplicationId=str(n))
        numbers.append(sent["SequenceNumber"])
    equal((sorted(numbers), {len(number) for number in numbers}), (numbers, {20}), "the sequence numbers")
    (first,) = receive(url, AttributeNames=["All"])
    equal((first["Body"], first["Attributes"]["MessageGroupId"], first["Attributes"]["MessageDeduplicationId"]), ("a0", "a", "0"), "the first message")
    equal(first["Attributes"]["SequenceNumber"], numbers[0], "its sequence number")
    others = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    equal(bodies(others), ["b0", "b1", "b2"], "the other group")
    is_empty(url)
    delete(url, first)
    rest = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    equal(bodies(rest), ["a1", "a2"], "the rest of the first group")
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=rest[0]["ReceiptHandle"], VisibilityTimeout=0)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=rest[1]["ReceiptHandle"], VisibilityTimeout=0)
    rest = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    equal(bodies(rest), ["a1", "a2"], "the same again")
    delete(url, *rest, *others)
    equal(counts(url), [0, 0, 0], "the counts")


@test("a FIFO queue takes a message once within five minutes, by its id or its body")
def deduplication():
    url = create_fifo(ContentBasedDeduplication="true")

    def send(body, **more):
        return sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g", **more)["MessageId"]

    first = send("same")
    equal(send("same"), first, "the id of a message with the same body")
    other = send("same", MessageDeduplicationId="own")
    equal(other != first, True, "whether an own id makes another message of it")
    equal(send("different", MessageDeduplicationId="own"), other, "the id of a message with the same id")
    messages = receive(url, 2)
    equal(bodies(messages), ["same", "same"], "what came")
    delete(url, *messages)
    equal(send("same"), first, "the id after the message was deleted")
    is_empty(url)


@test("a high-throughput FIFO queue tells repetitions apart by group, and goes on with a group while others are held")
def high_throughput():
    limits = {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    url = create_fifo(**limits)
    equal(attributes(url, *limits), limits, "the attributes")

    def send(group, body):
        sent = sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group, MessageDeduplicationId="1")
        return sent["MessageId"]

    first = send("a", "of a")
    equal(send("a", "again"), first, "the id of a repetition in the same group")
    equal(send("b", "of b") != first, True, "whether the same id is another message in another group")
    held = receive(url)
    other = receive(url)
    equal(sorted(bodies(held + other)), ["of a", "of b"], "what came")
    delete(url, *held, *other)
    is_empty(url)


@test("an expired receipt of a FIFO queue deletes nothing that somebody else has", waits=True)
def expired_receipt():
    url = create_fifo(ContentBasedDeduplication="true")
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g")
    (first,) = receive(url, VisibilityTimeout=1)
    (second,) = receive(url, VisibilityTimeout=600)
    message = refused("InvalidParameterValue", sqs.delete_message, QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    equal(message.endswith("The receipt handle has expired."), True, f"whether {message!r} says so")
    equal(counts(url), [0, 1, 0], "the counts")
    delete(url, second)
    equal(counts(url), [0, 0, 0], "the counts")


@test("a FIFO queue refuses what it cannot order or tell apart")
def wrong_fifo():
    url, standard = create_fifo(), create()
    refused("MissingParameter", sqs.send_message, QueueUrl=url, MessageBody="x", MessageDeduplicationId="1")
    message = refused("InvalidParameterValue", sqs.send_message, QueueUrl=url, MessageBody="x", MessageGroupId="g")
    equal(message, "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly", "the message")
    for parameters in [
        {"MessageGroupId": "g", "MessageDeduplicationId": "1", "DelaySeconds": 1},
        {"MessageGroupId": "a b", "MessageDeduplicationId": "1"},
        {"MessageGroupId": "g", "MessageDeduplicationId": "x" * 129},
    ]:
        refused("InvalidParameterValue", sqs.send_message, QueueUrl=url, MessageBody="x", **parameters)
    refused("InvalidParameterValue", sqs.send_message_batch, QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "x"}])
    refused("InvalidParameterValue", sqs.send_message, QueueUrl=standard, MessageBody="x", MessageDeduplicationId="1")
    sqs.send_message(QueueUrl=standard, MessageBody="x", MessageGroupId="tenant")
    (message,) = receive(standard, AttributeNames=["MessageGroupId"])
    equal(message["Attributes"], {"MessageGroupId": "tenant"}, "the group of a message of a standard queue")


@test("an attempt to receive is repeated by its id")
def attempts():
    url = create_fifo(ContentBasedDeduplication="true")
    for n in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(n), MessageGroupId="g")
    wanted = {"QueueUrl": url, "MaxNumberOfMessages": 2, "ReceiveRequestAttemptId": "attempt"}
    first = sqs.receive_message(**wanted)["Messages"]
    again = sqs.receive_message(**wanted)["Messages"]
    equal([(m["Body"], m["ReceiptHandle"]) for m in again], [(m["Body"], m["ReceiptHandle"]) for m in first], "the repeated attempt")
    delete(url, *again)
    equal(bodies(sqs.receive_message(**wanted)["Messages"]), ["2"], "the attempt after that")


@test("what was received too often goes to the dead letter queue, and back by a task", waits=True)
def dead_letters():
    dead, other = create(), create()
    policy = {"deadLetterTargetArn": arn(dead), "maxReceiveCount": 2}
    url = create({"VisibilityTimeout": "0", "RedrivePolicy": json.dumps(policy)})
    equal(sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"], [url], "the sources of the dead letter queue")
    sent = sqs.send_message(QueueUrl=url, MessageBody="poison", MessageAttributes={"a": {"DataType": "Number", "StringValue": "1"}}, DelaySeconds=1)
    for count in "12":
        (message,) = receive(url, AttributeNames=["All"])
        equal(message["Attributes"]["ApproximateReceiveCount"], count, "the count of receives")
    for _ in within(SECONDS, "the message is dead"):
        is_empty(url)
        if counts(dead)[0] == 1:
            break
    (letter,) = receive(dead, AttributeNames=["All"], MessageAttributeNames=["All"], VisibilityTimeout=0)
    equal((letter["Body"], letter["MessageId"]), ("poison", sent["MessageId"]), "the dead letter")
    equal(letter["MessageAttributes"]["a"]["DataType"], "Number", "the type of its attribute")
    equal(letter["Attributes"]["DeadLetterQueueSourceArn"], arn(url), "where it comes from")
    equal(letter["Attributes"]["ApproximateReceiveCount"], "3", "the count of receives")
    refused("InvalidParameterValue", move_task("start_message_move_task"), SourceArn=arn(other))
    refused("ResourceNotFoundException", move_task("start_message_move_task"), SourceArn=arn(dead), DestinationArn=arn(dead) + "-none")
    handle = move_task("start_message_move_task")(SourceArn=arn(dead))["TaskHandle"]
    for _ in within(SECONDS, "the task ends"):
        (task,) = move_task("list_message_move_tasks")(SourceArn=arn(dead))["Results"]
        if task["Status"] != "RUNNING":
            break
    equal((task["Status"], task["ApproximateNumberOfMessagesMoved"], task["SourceArn"]), ("COMPLETED", 1, arn(dead)), "the task")
    equal((counts(dead), counts(url)), ([0, 0, 0], [1, 0, 0]), "the counts")
    (back,) = receive(url, MessageAttributeNames=["All"])
    equal((back["Body"], list(back["MessageAttributes"])), ("poison", ["a"]), "the message that is back")
    refused("ResourceNotFoundException", move_task("cancel_message_move_task"), TaskHandle=handle)
    refused("InvalidParameterValue", move_task("cancel_message_move_task"), TaskHandle="x")


@test("dead letters are taken only of whom the allow policy of their queue names")
def allow_policy():
    allowed, other = create(), create()

    def redrive(url, dead):
        policy = json.dumps({"deadLetterTargetArn": arn(dead), "maxReceiveCount": 1})
        return {"QueueUrl": url, "Attributes": {"RedrivePolicy": policy}}

    dead = create({"RedriveAllowPolicy": json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [arn(allowed)]})})
    refused("InvalidParameterValue", sqs.set_queue_attributes, **redrive(other, dead))
    sqs.set_queue_attributes(**redrive(allowed, dead))
    equal(sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"], [allowed], "the sources of the dead letter queue")
    nobodys = create({"RedriveAllowPolicy": json.dumps({"redrivePermission": "denyAll"})})
    refused("InvalidParameterValue", sqs.set_queue_attributes, **redrive(allowed, nobodys))


def move_task(name):
    """The last botocore that spoke Query knows these actions too."""
    return getattr(sqs, name)


@test("a move task moves as fast as it is told, and ends when it is cancelled", waits=True)
def cancelled_task():
    dead, other = create(), create()
    create({"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn(dead), "maxReceiveCount": 1})})
    for n in range(5):
        sqs.send_message(QueueUrl=dead, MessageBody=str(n))
    start = {"SourceArn": arn(dead), "DestinationArn": arn(other), "MaxNumberOfMessagesPerSecond": 1}
    handle = move_task("start_message_move_task")(**start)["TaskHandle"]
    message = refused("InvalidParameterValue", move_task("start_message_move_task"), **start)
    equal("There is already a task running." in message, True, f"whether {message!r} says so")
    for _ in within(SECONDS, "a message is moved"):
        if counts(other)[0] > 0:
            break
    moved = move_task("cancel_message_move_task")(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"]
    equal(1 <= moved < 5, True, f"whether {moved} of 5 were moved")
    for _ in within(SECONDS, "the task ends"):
        (task,) = move_task("list_message_move_tasks")(SourceArn=arn(dead))["Results"]
        if task["Status"] == "CANCELLED":
            break
    equal(counts(dead)[0] + counts(other)[0], 5, "the messages of both queues")


@test("purging drops all messages, once a minute")
def purge():
    url = create_fifo(ContentBasedDeduplication="true")
    for n in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(n), MessageGroupId=str(n))
    receive(url)
    sqs.purge_queue(QueueUrl=url)
    equal(counts(url), [0, 0, 0], "the counts")
    message = refused("AWS.SimpleQueueService.PurgeQueueInProgress", sqs.purge_queue, QueueUrl=url)
    equal(message, f"Only one PurgeQueue operation on {name_of(url)} is allowed every 60 seconds.", "the message")
    sqs.send_message(QueueUrl=url, MessageBody="0", MessageGroupId="0")
    equal(bodies(receive(url)), ["0"], "what comes after the purge")


@test("tags are kept")
def tags():
    url = create(tags={"Team": "a", "team": "b"})
    sqs.tag_queue(QueueUrl=url, Tags={"x": "ü", "Team": "c"})
    equal(sqs.list_queue_tags(QueueUrl=url)["Tags"], {"Team": "c", "team": "b", "x": "ü"}, "the tags")
    sqs.untag_queue(QueueUrl=url, TagKeys=["x", "Team", "none"])
    equal(sqs.list_queue_tags(QueueUrl=url)["Tags"], {"team": "b"}, "the tags that are left")
    equal("Tags" in sqs.list_queue_tags(QueueUrl=create()), False, "tags of a queue without any")
    refused("InvalidParameterValue", sqs.tag_queue, QueueUrl=url, Tags={str(n): "x" for n in range(50)})


@test("permissions are statements of the policy")
def permissions():
    url = create()
    sqs.add_permission(QueueUrl=url, Label="one", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    sqs.add_permission(QueueUrl=url, Label="two", AWSAccountIds=["111111111111", "222222222222"], Actions=["*", "GetQueueUrl"])
    policy = json.loads(attributes(url, "Policy")["Policy"])
    equal(policy["Version"], "2008-10-17", "the version")
    equal(policy["Statement"][0], {
        "Sid": "one",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
        "Action": "SQS:SendMessage",
        "Resource": arn(url),
    }, "the first statement")
    equal(policy["Statement"][1]["Action"], ["SQS:*", "SQS:GetQueueUrl"], "the actions of the second")
    again = {"QueueUrl": url, "Label": "one", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
    equal(refused("InvalidParameterValue", sqs.add_permission, **again).endswith("Already exists."), True, "a label again")
    refused("OverLimit", sqs.add_permission, **{**again, "Label": "many", "Actions": ["SendMessage"] * 8})
    sqs.remove_permission(QueueUrl=url, Label="one")
    refused("InvalidParameterValue", sqs.remove_permission, QueueUrl=url, Label="one")
    sqs.remove_permission(QueueUrl=url, Label="two")
    equal(attributes(url, "Policy"), {}, "the policy without statements")


@test("who does not know the secret is refused")
def signatures():
    wrong = client(aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="wrong")
    refused("SignatureDoesNotMatch" if PROTOCOL == "query" else "SignatureDoesNotMatch", wrong.list_queues)
    refused("InvalidClientTokenId", client(aws_access_key_id="OTHER", aws_secret_access_key="x").list_queues)
    signed = client(aws_session_token="a token", region_name="eu-central-1")
    url = create()
    equal(signed.get_queue_url(QueueName=name_of(url))["QueueUrl"], url, "the URL for one in another region")


@test("the queue resource of boto3 sends, receives and deletes")
def resource():
    config = {"endpoint_url": ENDPOINT, "region_name": REGION}
    queue = boto3.resource("sqs", **config).create_queue(QueueName=fresh(), Attributes={"DelaySeconds": "0"})
    queue.send_message(MessageBody="x", MessageAttributes={"Author": {"StringValue": "K.", "DataType": "String"}})
    (message,) = queue.receive_messages(MessageAttributeNames=["Author"], WaitTimeSeconds=5)
    equal((message.body, message.message_attributes["Author"]["StringValue"]), ("x", "K."), "the message")
    message.delete()
    equal(queue.attributes["ApproximateNumberOfMessages"], "0", "how many are left")


@test("a producer, a batch, a consumer, a FIFO queue and a dead letter queue as people write them")
def everyday_program():
    dead = create({"MessageRetentionPeriod": str(14 * 24 * 60 * 60)})
    url = create()
    sqs.set_queue_attributes(
        QueueUrl=url,
        Attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn(dead), "maxReceiveCount": 5})},
    )
    priority = {"Priority": {"DataType": "Number", "StringValue": "1"}}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"order_id": "123"}), MessageAttributes=priority, DelaySeconds=1)
    sent = sqs.send_message_batch(
        QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": json.dumps({"order_id": str(n)})} for n in range(10)]
    )
    equal((len(sent.get("Successful", [])), len(sent.get("Failed", []))), (10, 0), "what was sent")
    orders = set()
    for _ in within(SECONDS, "all orders come"):
        answer = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20, VisibilityTimeout=30, MessageAttributeNames=["All"]
        )
        for message in answer.get("Messages", []):
            orders.add(json.loads(message["Body"])["order_id"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        if len(orders) == 11:
            break
    ordered = create_fifo()
    sqs.send_message(
        QueueUrl=ordered,
        MessageBody=json.dumps({"order_id": "123", "action": "create"}),
        MessageDeduplicationId="order-123-create-attempt-1",
        MessageGroupId="order-123",
    )
    equal(json.loads(receive(ordered)[0]["Body"])["action"], "create", "what the FIFO queue gives")


if PROTOCOL == "json":

    @test("a program with the URL of a queue at Amazon runs with just the endpoint set")
    def foreign_url():
        name = name_of(create())
        url = f"https://sqs.us-east-1.amazonaws.com/123456789/{name}"
        plain = boto3.client("sqs", region_name=REGION)
        plain.send_message(QueueUrl=url, MessageBody='{"order_id": 123}')
        response = plain.receive_message(QueueUrl=url)
        for message in response.get("Messages", []):
            plain.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        equal(bodies(response["Messages"]), ['{"order_id": 123}'], "what came")

    @test("Kafka clients see the messages of a queue with their attributes as headers, and send to it")
    def kafka():
        from confluent_kafka import Consumer, Producer

        url = create()
        kafka_client = {"bootstrap.servers": suite.BOOTSTRAP, "log_level": 2}
        sqs.send_message(QueueUrl=url, MessageBody="from SQS", MessageAttributes={"kind": {"DataType": "String", "StringValue": "greeting"}})
        producer = Producer(kafka_client)
        producer.produce(name_of(url), b"from Kafka", headers=[("kind", b"answer"), ("raw", b"\xff")])
        producer.flush(SECONDS)
        messages = {message["Body"]: message for message in receive(url, 2, MessageAttributeNames=["All"])}
        answer = messages["from Kafka"]["MessageAttributes"]
        equal(answer["kind"], {"StringValue": "answer", "DataType": "String"}, "a header as an attribute")
        equal(answer["raw"], {"BinaryValue": b"\xff", "DataType": "Binary"}, "one that is no text")
        consumer = Consumer({**kafka_client, "group.id": fresh(), "auto.offset.reset": "earliest"})
        consumer.subscribe([name_of(url)])
        try:
            for _ in within(SECONDS, "the record comes"):
                record = consumer.poll(1)
                if record and not record.error() and record.value() == b"from SQS":
                    break
            equal(dict(record.headers())["kind"], b"greeting", "an attribute as a header")
        finally:
            consumer.close()


@test("a crash loses no message, brings none back that was deleted, and ends no time early", needs_crash=True)
def crash():
    url, fifo_url = create(tags={"kept": "yes"}), create_fifo(ContentBasedDeduplication="true")
    for n in range(30):
        sqs.send_message(QueueUrl=url, MessageBody=str(n))
    sqs.send_message(QueueUrl=url, MessageBody="delayed", DelaySeconds=900)
    first = sqs.send_message(QueueUrl=fifo_url, MessageBody="once", MessageGroupId="g")["MessageId"]
    deleted, held = receive(url, 10), receive(url, 10, VisibilityTimeout=600)
    delete(url, *deleted)
    before = counts(url)
    equal(before, [10, 10, 1], "the counts")
    broker("kill")
    broker("restart")
    again = client()
    for _ in within(SECONDS, "the queue answers"):
        try:
            found = counts(url)
            break
        except ClientError as error:
            equal(error.response["Error"]["Code"], "ServiceUnavailable", "why it does not answer")
    equal(found, before, "the counts after the crash")
    equal(again.list_queue_tags(QueueUrl=url)["Tags"], {"kept": "yes"}, "the tags after the crash")
    rest = receive(url, 10, AttributeNames=["ApproximateReceiveCount"])
    is_empty(url)
    equal(len({*bodies(deleted), *bodies(held), *bodies(rest)}), 30, "how many messages there are in all")
    equal({message["Attributes"]["ApproximateReceiveCount"] for message in rest}, {"1"}, "how often the rest was received")
    delete(url, *held, *rest)
    equal(counts(url), [0, 0, 1], "the counts when all are deleted")
    again = sqs.send_message(QueueUrl=fifo_url, MessageBody="once", MessageGroupId="g")["MessageId"]
    equal(again, first, "the id of a duplicate after the crash")
    equal(len(receive(fifo_url)), 1, "how often it came")
    is_empty(fifo_url)


run("sqs-python")
