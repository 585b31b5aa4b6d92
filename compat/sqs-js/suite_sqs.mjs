// The AWS SDK for JavaScript v3 against the SQS endpoint: all that a client is told, it takes from the environment.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import {
  BatchEntryIdsNotDistinct,
  paginateListQueues,
  PurgeQueueInProgress,
  QueueDoesNotExist,
  QueueNameExists,
  ReceiptHandleIsInvalid,
  ReceiveMessageCommand,
  SendMessageCommand,
  SQS,
  SQSClient,
  TooManyEntriesInBatchRequest,
} from "@aws-sdk/client-sqs";
import { broker, run, until } from "./suite.mjs";

const ENDPOINT = process.env.AWS_ENDPOINT_URL_SQS;
const sqs = new SQS();

const freshName = (suffix = "") => `q-${randomUUID().slice(0, 13)}${suffix}`;
const nameOf = (url) => url.split("/").at(-1);
const bodies = (messages) => messages.map((message) => message.Body);

async function create(Attributes = {}, suffix = "") {
  return (await sqs.createQueue({ QueueName: freshName(suffix), Attributes })).QueueUrl;
}

const createFifo = (attributes) => create({ FifoQueue: "true", ...attributes }, ".fifo");

async function attributesOf(QueueUrl, ...AttributeNames) {
  return (await sqs.getQueueAttributes({ QueueUrl, AttributeNames })).Attributes ?? {};
}

const arnOf = async (url) => (await attributesOf(url, "QueueArn")).QueueArn;

/** How many messages wait, are with somebody, and are delayed. */
async function countsOf(url) {
  const names = ["", "NotVisible", "Delayed"].map((which) => `ApproximateNumberOfMessages${which}`);
  const found = await attributesOf(url, ...names);
  return names.map((name) => Number(found[name]));
}

const send = (QueueUrl, MessageBody, more = {}) => sqs.sendMessage({ QueueUrl, MessageBody, ...more });

/** What one call gives. */
async function receive(QueueUrl, options = {}) {
  return (await sqs.receiveMessage({ QueueUrl, MaxNumberOfMessages: 10, ...options })).Messages ?? [];
}

/** So many messages, which may take several calls. */
async function receiveAll(url, count, options = {}) {
  const found = [];
  await until(`${count} messages come`, async () => {
    const MaxNumberOfMessages = Math.min(10, count - found.length);
    found.push(...(await receive(url, { WaitTimeSeconds: 1, ...options, MaxNumberOfMessages })));
    return found.length === count;
  });
  return found;
}

async function remove(QueueUrl, ...messages) {
  for (const { ReceiptHandle } of messages) await sqs.deleteMessage({ QueueUrl, ReceiptHandle });
}

const hide = (QueueUrl, { ReceiptHandle }, VisibilityTimeout) =>
  sqs.changeMessageVisibility({ QueueUrl, ReceiptHandle, VisibilityTimeout });

async function queuesComeAndGo() {
  const QueueName = freshName();
  const { QueueUrl } = await sqs.createQueue({ QueueName });
  assert.equal(QueueUrl, `${ENDPOINT}/000000000000/${QueueName}`);
  assert.equal((await sqs.createQueue({ QueueName })).QueueUrl, QueueUrl);
  assert.equal((await sqs.getQueueUrl({ QueueName })).QueueUrl, QueueUrl);
  assert.deepEqual((await sqs.listQueues({ QueueNamePrefix: QueueName })).QueueUrls, [QueueUrl]);
  await sqs.deleteQueue({ QueueUrl });
  assert.equal((await sqs.listQueues({ QueueNamePrefix: QueueName })).QueueUrls?.length ?? 0, 0);
}

async function listsInPages() {
  const [prefix, urls, found] = [freshName(), [], []];
  for (let n = 0; n < 5; n++) urls.push((await sqs.createQueue({ QueueName: `${prefix}-${n}` })).QueueUrl);
  for await (const page of paginateListQueues({ client: sqs, pageSize: 2 }, { QueueNamePrefix: prefix })) {
    found.push(page.QueueUrls);
  }
  assert.deepEqual(found, [urls.slice(0, 2), urls.slice(2, 4), urls.slice(4)]);
}

async function keepsAttributes() {
  const url = await create({ DelaySeconds: "3" });
  const Attributes = { VisibilityTimeout: "77", ReceiveMessageWaitTimeSeconds: "2", MaximumMessageSize: "2048" };
  await sqs.setQueueAttributes({ QueueUrl: url, Attributes });
  const all = await attributesOf(url, "All");
  for (const [name, value] of Object.entries({ ...Attributes, DelaySeconds: "3", MessageRetentionPeriod: "345600" })) {
    assert.equal(all[name], value, name);
  }
  assert.equal(all.QueueArn, `arn:aws:sqs:us-east-1:000000000000:${nameOf(url)}`);
  await assert.rejects(create({ VisibilityTimeout: "43201" }), { name: "InvalidAttributeValue" });
}

async function keepsTags() {
  const url = await create();
  await sqs.tagQueue({ QueueUrl: url, Tags: { team: "ü", stage: "test" } });
  assert.deepEqual((await sqs.listQueueTags({ QueueUrl: url })).Tags, { team: "ü", stage: "test" });
  await sqs.untagQueue({ QueueUrl: url, TagKeys: ["stage"] });
  assert.deepEqual((await sqs.listQueueTags({ QueueUrl: url })).Tags, { team: "ü" });
}

async function comesBackAsSent() {
  const url = await create();
  const body = "line\r\n<&>\"' \t ünï 😀 ".repeat(100);
  const MessageAttributes = {
    text: { DataType: "String", StringValue: "ü\r\n<&>" },
    number: { DataType: "Number", StringValue: "-12.5" },
    bytes: { DataType: "Binary", BinaryValue: Uint8Array.of(0, 255, 30) },
  };
  const sent = await send(url, body, { MessageAttributes });
  const wanted = { MessageAttributeNames: ["All"], MessageSystemAttributeNames: ["All"] };
  const [message] = await receiveAll(url, 1, wanted);
  assert.equal(message.Body, body);
  assert.equal(message.MessageId, sent.MessageId);
  assert.equal(message.MD5OfBody, sent.MD5OfMessageBody);
  assert.equal(message.MD5OfMessageAttributes, sent.MD5OfMessageAttributes);
  assert.deepEqual(message.MessageAttributes, MessageAttributes);
  assert.equal(message.Attributes.ApproximateReceiveCount, "1");
  assert.ok(Math.abs(Date.now() - Number(message.Attributes.SentTimestamp)) < 60_000, "the time of sending");
  await remove(url, message);
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
}

async function batchesFailInPart() {
  const url = await create({ MaximumMessageSize: "1024" });
  const Entries = Array.from({ length: 10 }, (_, n) => ({ Id: `${n}`, MessageBody: "x".repeat(n === 3 ? 1025 : n + 1) }));
  const sent = await sqs.sendMessageBatch({ QueueUrl: url, Entries });
  assert.equal(sent.Successful.map(({ Id }) => Id).join(""), "012456789");
  assert.deepEqual(
    sent.Failed.map(({ Id, SenderFault, Code }) => [Id, SenderFault, Code]),
    [["3", true, "InvalidParameterValue"]],
  );
  const messages = await receiveAll(url, 9);
  assert.deepEqual(bodies(messages).map((body) => body.length).sort((a, b) => a - b), [1, 2, 3, 5, 6, 7, 8, 9, 10]);
  const handles = messages.map(({ ReceiptHandle }, n) => ({ Id: `${n}`, ReceiptHandle }));
  const deleted = await sqs.deleteMessageBatch({
    QueueUrl: url,
    Entries: [...handles, { Id: "bad", ReceiptHandle: "no handle" }],
  });
  assert.equal(deleted.Successful.length, 9);
  assert.deepEqual(deleted.Failed.map(({ Id, Code }) => [Id, Code]), [["bad", "ReceiptHandleIsInvalid"]]);
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
}

async function errorsHaveTheirClasses() {
  const missing = `${ENDPOINT}/000000000000/${freshName()}`;
  for (const call of [
    () => sqs.getQueueUrl({ QueueName: nameOf(missing) }),
    () => send(missing, "x"),
    () => receive(missing),
    () => sqs.deleteQueue({ QueueUrl: missing }),
  ]) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof QueueDoesNotExist, `${error.name} instead of QueueDoesNotExist`);
      assert.equal(error.$metadata.httpStatusCode, 400);
      assert.equal(error.message, "The specified queue does not exist.");
      return true;
    });
  }
  const url = await create({ VisibilityTimeout: "5" });
  const again = { QueueName: nameOf(url), Attributes: { VisibilityTimeout: "6" } };
  await assert.rejects(sqs.createQueue(again), QueueNameExists);
  await assert.rejects(sqs.deleteMessage({ QueueUrl: url, ReceiptHandle: "x" }), ReceiptHandleIsInvalid);
  const entries = (count, id) => Array.from({ length: count }, (_, n) => ({ Id: id ?? `${n}`, MessageBody: "x" }));
  await assert.rejects(sqs.sendMessageBatch({ QueueUrl: url, Entries: entries(11) }), TooManyEntriesInBatchRequest);
  await assert.rejects(sqs.sendMessageBatch({ QueueUrl: url, Entries: entries(2, "a") }), BatchEntryIdsNotDistinct);
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
}

async function longPollWakes() {
  const url = await create();
  const began = performance.now();
  const waiting = receive(url, { WaitTimeSeconds: 20 });
  // When a second poll ends without a message, the first is surely waiting.
  assert.deepEqual(await receive(url, { WaitTimeSeconds: 1 }), []);
  assert.ok(performance.now() - began >= 900, "a poll of one second ended before that");
  await send(url, "late");
  assert.deepEqual(bodies(await waiting), ["late"]);
  assert.ok(performance.now() - began < 15_000, "the poll was not woken");
}

async function abortedPollTakesNothing() {
  const url = await create();
  const abort = new AbortController();
  const poll = new ReceiveMessageCommand({ QueueUrl: url, WaitTimeSeconds: 20 });
  const waiting = sqs.send(poll, { abortSignal: abort.signal });
  const ended = assert.rejects(waiting, { name: "AbortError" });
  assert.deepEqual(await receive(url, { WaitTimeSeconds: 1 }), []);
  abort.abort();
  await ended;
  await send(url, "x");
  const [message] = await receiveAll(url, 1, { MessageSystemAttributeNames: ["ApproximateReceiveCount"] });
  assert.deepEqual(message.Attributes, { ApproximateReceiveCount: "1" });
}

async function visibilityChanges() {
  const url = await create({ VisibilityTimeout: "600" });
  await send(url, "x");
  const [first] = await receiveAll(url, 1);
  assert.deepEqual(await receive(url), []);
  await hide(url, first, 0);
  const [second] = await receiveAll(url, 1, { MessageSystemAttributeNames: ["ApproximateReceiveCount"] });
  assert.deepEqual(second.Attributes, { ApproximateReceiveCount: "2" });
  await assert.rejects(hide(url, first, 0), { name: "InvalidParameterValue" });
  const began = performance.now();
  await hide(url, second, 1);
  const [third] = await receiveAll(url, 1);
  assert.ok(performance.now() - began > 900, "it came back before its time");
  await remove(url, third);
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
}

async function delays() {
  const url = await create();
  await send(url, "delayed", { DelaySeconds: 2 });
  await send(url, "now");
  assert.deepEqual(await countsOf(url), [1, 0, 1]);
  assert.deepEqual(bodies(await receiveAll(url, 2)), ["now", "delayed"]);
}

async function fifoKeepsOrder() {
  const url = await createFifo();
  const numbers = [];
  for (let n = 0; n < 6; n++) {
    const group = "ab"[n % 2];
    const ids = { MessageGroupId: group, MessageDeduplicationId: `${n}` };
    numbers.push((await send(url, `${group}${Math.floor(n / 2)}`, ids)).SequenceNumber);
  }
  assert.deepEqual(numbers.toSorted(), numbers);
  const [first] = await receive(url, { MaxNumberOfMessages: 1, MessageSystemAttributeNames: ["All"] });
  assert.deepEqual([first.Body, first.Attributes.MessageGroupId, first.Attributes.SequenceNumber], ["a0", "a", numbers[0]]);
  const others = await receive(url);
  assert.deepEqual(bodies(others), ["b0", "b1", "b2"]);
  assert.deepEqual(await receive(url), []);
  await remove(url, first);
  const rest = await receive(url);
  assert.deepEqual(bodies(rest), ["a1", "a2"]);
  await remove(url, ...rest, ...others);
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
}

async function fifoDeduplicates() {
  const url = await createFifo({ ContentBasedDeduplication: "true" });
  const group = { MessageGroupId: "g" };
  const first = await send(url, "same", group);
  assert.equal((await send(url, "same", group)).MessageId, first.MessageId);
  const own = await send(url, "same", { ...group, MessageDeduplicationId: "own" });
  assert.notEqual(own.MessageId, first.MessageId);
  assert.equal((await send(url, "other", { ...group, MessageDeduplicationId: "own" })).MessageId, own.MessageId);
  assert.deepEqual(bodies(await receive(url)), ["same", "same"]);
  await assert.rejects(send(url, "x"), { name: "MissingParameter" });
}

async function deadLetters() {
  const [dead, url] = [await create(), await create()];
  const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: await arnOf(dead), maxReceiveCount: 2 });
  await sqs.setQueueAttributes({ QueueUrl: url, Attributes: { RedrivePolicy, VisibilityTimeout: "0" } });
  assert.deepEqual((await sqs.listDeadLetterSourceQueues({ QueueUrl: dead })).queueUrls, [url]);
  const sent = await send(url, "poison", { MessageAttributes: { a: { DataType: "Number", StringValue: "1" } } });
  for (const count of ["1", "2"]) {
    const [message] = await receiveAll(url, 1, { MessageSystemAttributeNames: ["ApproximateReceiveCount"] });
    assert.deepEqual(message.Attributes, { ApproximateReceiveCount: count });
  }
  assert.deepEqual(await receive(url), []);
  const all = { MessageAttributeNames: ["All"], MessageSystemAttributeNames: ["All"], VisibilityTimeout: 0 };
  const [letter] = await receiveAll(dead, 1, all);
  assert.deepEqual([letter.Body, letter.MessageId, letter.MessageAttributes.a.StringValue], ["poison", sent.MessageId, "1"]);
  assert.equal(letter.Attributes.DeadLetterQueueSourceArn, await arnOf(url));
  const SourceArn = await arnOf(dead);
  await sqs.startMessageMoveTask({ SourceArn });
  await until("the move task ends", async () => {
    const [task] = (await sqs.listMessageMoveTasks({ SourceArn })).Results;
    return task.Status === "COMPLETED" && task.ApproximateNumberOfMessagesMoved === 1;
  });
  assert.deepEqual([await countsOf(dead), await countsOf(url)], [[0, 0, 0], [1, 0, 0]]);
}

async function purges() {
  const url = await create();
  for (const n of "123") await send(url, n);
  await sqs.purgeQueue({ QueueUrl: url });
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
  await assert.rejects(sqs.purgeQueue({ QueueUrl: url }), PurgeQueueInProgress);
  await send(url, "4");
  assert.deepEqual(bodies(await receiveAll(url, 1)), ["4"]);
}

async function signaturesAreVerified() {
  const credentials = { accessKeyId: process.env.AWS_ACCESS_KEY_ID, secretAccessKey: "wrong" };
  const stranger = new SQS({ credentials });
  await assert.rejects(stranger.listQueues({}), { name: "SignatureDoesNotMatch" });
  stranger.destroy();
}

async function manyAtOnce() {
  const url = await create();
  const client = new SQSClient({ maxAttempts: 1 });
  const sent = Array.from({ length: 200 }, (_, n) => `${n}`);
  const answers = await Promise.all(
    sent.map((body) => client.send(new SendMessageCommand({ QueueUrl: url, MessageBody: body }))),
  );
  assert.equal(new Set(answers.map(({ MessageId }) => MessageId)).size, 200);
  const consume = async () => {
    const got = [];
    for (let some; (some = await receive(url)).length > 0; got.push(...bodies(some))) await remove(url, ...some);
    return got;
  };
  const got = (await Promise.all([consume(), consume(), consume()])).flat();
  assert.deepEqual(got.sort(), sent.sort());
  client.destroy();
}

async function survivesACrash() {
  const [url, fifo] = [await create(), await createFifo({ ContentBasedDeduplication: "true" })];
  const sent = Array.from({ length: 30 }, (_, n) => `${n}`);
  for (const body of sent) await send(url, body);
  const once = await send(fifo, "once", { MessageGroupId: "g" });
  const deleted = await receiveAll(url, 10);
  const held = await receiveAll(url, 10, { VisibilityTimeout: 600 });
  await remove(url, ...deleted);
  assert.deepEqual(await countsOf(url), [10, 10, 0]);
  await broker("restart");
  await until("the queue answers", () => countsOf(url).catch(() => false));
  assert.deepEqual(await countsOf(url), [10, 10, 0]);
  const rest = await receiveAll(url, 10);
  assert.deepEqual(await receive(url), []);
  assert.deepEqual(bodies([...deleted, ...held, ...rest]).sort(), sent.sort());
  await remove(url, ...held, ...rest);
  assert.deepEqual(await countsOf(url), [0, 0, 0]);
  assert.equal((await send(fifo, "once", { MessageGroupId: "g" })).MessageId, once.MessageId);
  assert.deepEqual(bodies(await receive(fifo)), ["once"]);
}

const status = await run(
  "sqs-js",
  {
    "queues are made, found, listed and deleted": queuesComeAndGo,
    "the paginator lists all queues of a prefix": listsInPages,
    "attributes are set and read back, and wrong ones refused": keepsAttributes,
    "tags are kept": keepsTags,
    "a message with attributes of every type comes back as it was sent": comesBackAsSent,
    "an entry of a batch that fails spoils no other": batchesFailInPart,
    "errors are those of the SDK's classes": errorsHaveTheirClasses,
    "a long poll is woken by a message": longPollWakes,
    "a long poll that is aborted takes no message": abortedPollTakesNothing,
    "a message is hidden as long as it is told": visibilityChanges,
    "a delayed message holds up no other": delays,
    "a FIFO queue keeps the order of each group": fifoKeepsOrder,
    "a FIFO queue takes a message once, by its id or its body": fifoDeduplicates,
    "a dead letter comes to its queue, and back by a task": deadLetters,
    "purging drops all messages, once a minute": purges,
    "who does not know the secret is refused": signaturesAreVerified,
    "200 messages sent at once reach three consumers, each once": manyAtOnce,
    "a crash loses no message and brings none back that was deleted": survivesACrash,
  },
  (error) => error.$metadata?.httpStatusCode ?? "",
);
sqs.destroy();
process.exit(status);
