// kafkajs: producer and admin client. Its consumer always joins a group, so kcat reads the records back.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { promisify } from "node:util";
import { init as loadZstd, compress as zstd, decompress as unzstd } from "@bokuweb/zstd-wasm";
import kafkajs from "kafkajs";
import snappy from "kafkajs-snappy";
import lz4 from "lz4-napi";

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
const { BOOTSTRAP, BROKER } = process.env;
const DEADLINE_MS = 30_000;
// An hour ago: recent enough for every retention, and unlike any time that a broker would put in itself.
const START_MS = Date.now() - 3_600_000;
const STEP_MS = 1000;

await loadZstd();
CompressionCodecs[CompressionTypes.Snappy] = snappy;
// kafkajs-lz4 and @kafkajs/zstd build C++ against Node's headers, or fail to; these need no compiler.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd(encoder.buffer, 3)),
  decompress: async (buffer) => Buffer.from(unzstd(buffer)),
});

const options = { clientId: "compat", brokers: [BOOTSTRAP], logLevel: logLevel.NOTHING };
const kafka = new Kafka({ ...options, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 3 } });
const admin = kafka.admin();
const producer = kafka.producer();

/** The name of the protocol error inside whatever the client has wrapped around it. */
function errorType(error) {
  if (error.type) return error.type;
  const inner = error.errors?.[0] ?? error.cause;
  return inner ? errorType(inner) : error.name;
}

/** Fails unless the promise is rejected for this protocol error. */
async function refused(promise, type) {
  const error = await promise.then(
    () => assert.fail(`no error, where ${type} should be`),
    (error) => error,
  );
  assert.equal(errorType(error), type);
}

/** Fails unless the condition becomes true in time. */
async function until(what, condition) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end; ) if (await condition()) return;
  assert.fail(`not in time: ${what}`);
}

async function partitionsOf(topic) {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
  return topics[0].partitions;
}

/** Waits until all leaders are named and answer: a send of which one partition fails is repeated by this client for all. */
async function untilReady(topic, count) {
  const notYet = (error) => {
    if (errorType(error) !== "NOT_LEADER_FOR_PARTITION") throw error;
    return [];
  };
  await until(`${topic} has ${count} partitions`, async () => (await partitionsOf(topic)).length === count);
  await until("they answer", async () => (await admin.fetchTopicOffsets(topic).catch(notYet)).length === count);
}

/** A new topic that takes records. */
async function create(numPartitions, config = {}) {
  const topic = `compat.${randomUUID().slice(0, 13)}`;
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, configEntries }] });
  await untilReady(topic, numPartitions);
  return topic;
}

/** Everything in a partition, by kcat, in the shape in which it was sent. */
async function read(topic, partition) {
  const { stdout } = await promisify(execFile)(
    "kcat",
    ["-C", "-q", "-b", BOOTSTRAP, "-t", topic, "-p", `${partition}`, "-o", "beginning", "-e", "-J"],
    { maxBuffer: 1 << 28, timeout: DEADLINE_MS },
  );
  return stdout.split("\n").filter(Boolean).map(JSON.parse);
}

/** Fails unless the topic holds exactly these messages, in order and at dense offsets from 0. */
async function expectAll(topic, messages) {
  for (const partition of new Set(messages.map((message) => message.partition))) {
    const wanted = messages
      .filter((message) => message.partition === partition)
      .map(({ key, value, headers, timestamp }, offset) => ({
        offset,
        key,
        value,
        headers: Object.entries(headers ?? {}).flatMap(([name, values]) => [values].flat().flatMap((v) => [name, v])),
        timestamp: Number(timestamp),
      }));
    const got = (await read(topic, partition)).map(({ offset, key, payload, headers, ts }) => ({
      offset,
      key,
      value: payload,
      headers: headers ?? [],
      timestamp: ts,
    }));
    assert.equal(got.length, wanted.length, `${got.length} records in partition ${partition} instead of ${wanted.length}`);
    got.forEach((record, n) => assert.deepEqual(record, wanted[n]));
  }
}

/** Messages with and without key, value and headers, one step of time apart, spread evenly over the partitions. */
function mixedMessages(count, partitions) {
  return Array.from({ length: count }, (_, n) => ({
    partition: n % partitions,
    key: n % 7 === 0 ? null : `key-${n % 10}`,
    value: n % 11 === 0 ? null : `value ${n} `.repeat((n % 20) + 1),
    headers: n % 3 === 0 ? {} : { n: [`${n}`, "again"], empty: "", Größe: "größer" },
    timestamp: `${START_MS + n * STEP_MS}`,
  }));
}

function plainMessage(n, partitions = 1) {
  return { partition: n % partitions, key: null, value: `record ${n}`, timestamp: `${START_MS + n}` };
}

function plainMessages(count, partitions = 1) {
  return Array.from({ length: count }, (_, n) => plainMessage(n, partitions));
}

async function configsOf(topic) {
  const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] });
  return Object.fromEntries(resources[0].configEntries.map(({ configName, configValue }) => [configName, configValue]));
}

const tests = {
  "creates a topic with partitions and configs, lists and describes it": async () => {
    const topic = await create(4, { "max.message.bytes": "200000", "retention.ms": "-1" });
    assert((await admin.listTopics()).includes(topic));
    const partitions = await partitionsOf(topic);
    assert.deepEqual(partitions.map((p) => p.partitionId).sort(), [0, 1, 2, 3]);
    const { brokers } = await admin.describeCluster();
    assert.deepEqual([...new Set(partitions.map((p) => p.leader))], brokers.map((b) => b.nodeId));
    const configs = await configsOf(topic);
    assert.equal(configs["max.message.bytes"], "200000");
    assert.equal(configs["retention.ms"], "-1");
    assert.equal(configs["segment.bytes"], "1073741824");
  },

  "refuses a topic that exists, an illegal name, an unknown config and no partitions": async () => {
    const topic = await create(1);
    assert.equal(await admin.createTopics({ topics: [{ topic }] }), false);
    await refused(admin.createTopics({ topics: [{ topic: "no spaces" }] }), "INVALID_TOPIC_EXCEPTION");
    const configEntries = [{ name: "no.such", value: "1" }];
    await refused(admin.createTopics({ topics: [{ topic: `${topic}.x`, configEntries }] }), "INVALID_CONFIG");
    await refused(admin.createTopics({ topics: [{ topic: `${topic}.y`, numPartitions: 0 }] }), "INVALID_PARTITIONS");
  },

  ...Object.fromEntries(
    ["None", "GZIP", "Snappy", "LZ4", "ZSTD"].map((codec) => [
      `sends keys, headers, nulls and timestamps with ${codec.toLowerCase()}, and they are read back in order`,
      async () => {
        const topic = await create(3);
        const messages = mixedMessages(600, 3);
        await producer.send({ topic, messages, compression: CompressionTypes[codec] });
        await expectAll(topic, messages);
      },
    ]),
  ),

  "a record of 900 KB comes back, plain and compressed": async () => {
    const topic = await create(1);
    const message = { ...plainMessage(0), value: randomBytes(450 * 1024).toString("hex") };
    for (const compression of [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.ZSTD]) {
      await producer.send({ topic, messages: [message], compression });
    }
    await expectAll(topic, [message, message, message]);
  },

  "batches of 10,000 records come back in order": async () => {
    const topic = await create(2);
    const messages = plainMessages(40_000, 2);
    for (const half of [messages.slice(0, 20_000), messages.slice(20_000)]) {
      await producer.send({ topic, messages: half });
    }
    await expectAll(topic, messages);
  },

  "acks 0, 1 and all store records in the order of sending": async () => {
    const topic = await create(1);
    const messages = plainMessages(300);
    for (const [n, acks] of [0, 1, -1].entries()) {
      await producer.send({ topic, acks, messages: messages.slice(n * 100, n * 100 + 100) });
    }
    await expectAll(topic, messages);
  },

  "an idempotent producer writes each record once and learns its offset": async () => {
    const topic = await create(3);
    const messages = plainMessages(3000, 3);
    const idempotent = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await idempotent.connect();
    for (let n = 0; n < 3000; n += 300) {
      const sent = await idempotent.send({ topic, messages: messages.slice(n, n + 300) });
      assert.deepEqual(sent.map((partition) => partition.baseOffset), Array(3).fill(`${n / 3}`));
    }
    await idempotent.disconnect();
    await expectAll(topic, messages);
  },

  "LogAppendTime puts the broker's time into the records": async () => {
    const topic = await create(1, { "message.timestamp.type": "LogAppendTime" });
    await producer.send({ topic, messages: plainMessages(10) });
    const records = await read(topic, 0);
    assert.deepEqual(records.map((record) => record.tstype), Array(10).fill("logappend"));
    assert(records.every((record) => record.ts > START_MS + 3_000_000));
  },

  "finds offsets by timestamp, the earliest and the latest": async () => {
    const topic = await create(1);
    await producer.send({ topic, messages: mixedMessages(500, 1), compression: CompressionTypes.LZ4 });
    const at = async (timestamp) => (await admin.fetchTopicOffsetsByTimestamp(topic, timestamp))[0].offset;
    assert.equal(await at(START_MS), "0");
    assert.equal(await at(START_MS + 123 * STEP_MS), "123");
    assert.equal(await at(START_MS + 123 * STEP_MS + 1), "124");
    // This client turns "none" into the end.
    assert.equal(await at(START_MS + 500 * STEP_MS), "500");
    assert.deepEqual(await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: "500", high: "500", low: "0" }]);
  },

  "an unknown topic is an error for producer and admin, and is not created": async () => {
    const topic = `compat.${randomUUID()}`;
    await refused(producer.send({ topic, messages: plainMessages(1) }), "UNKNOWN_TOPIC_OR_PARTITION");
    await refused(admin.fetchTopicMetadata({ topics: [topic] }), "UNKNOWN_TOPIC_OR_PARTITION");
    await refused(admin.deleteTopics({ topics: [topic] }), "UNKNOWN_TOPIC_OR_PARTITION");
    assert(!(await admin.listTopics()).includes(topic));
  },

  "an oversized record is refused and its neighbours are stored": async () => {
    const topic = await create(1, { "max.message.bytes": "10000" });
    const small = plainMessages(2);
    await producer.send({ topic, messages: small.slice(0, 1) });
    const big = { ...small[0], value: "x".repeat(20_000) };
    await refused(producer.send({ topic, messages: [big] }), "MESSAGE_TOO_LARGE");
    await producer.send({ topic, messages: small.slice(1) });
    await expectAll(topic, small);
  },

  "replaces the configs of a topic as a whole, or leaves them when one is bad": async () => {
    const topic = await create(1, { "retention.ms": "1000000", "max.message.bytes": "50000" });
    const alter = (...configEntries) =>
      admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }] });
    await alter({ name: "retention.ms", value: "7200000" });
    await until("the new config is described", async () => (await configsOf(topic))["retention.ms"] === "7200000");
    assert.equal((await configsOf(topic))["max.message.bytes"], "1048588");
    const bad = alter({ name: "retention.ms", value: "5000" }, { name: "segment.bytes", value: "many" });
    await refused(bad, "INVALID_CONFIG");
    assert.equal((await configsOf(topic))["retention.ms"], "7200000");
  },

  "adds partitions, which take records, and refuses to take them away": async () => {
    const topic = await create(1);
    await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
    await untilReady(topic, 3);
    const messages = plainMessages(30, 3);
    await producer.send({ topic, messages });
    await expectAll(topic, messages);
    await refused(admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] }), "INVALID_PARTITIONS");
  },

  "deletes records up to an offset, and up to the end": async () => {
    const topic = await create(1);
    const messages = plainMessages(100);
    await producer.send({ topic, messages });
    assert.deepEqual(await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: "100", high: "100", low: "0" }]);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "42" }] });
    const left = (await read(topic, 0)).map(({ offset, payload }) => [offset, payload]);
    assert.deepEqual(left, messages.map(({ value }, offset) => [offset, value]).slice(42));
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "-1" }] });
    assert.deepEqual(await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: "100", high: "100", low: "100" }]);
    const [{ baseOffset }] = await producer.send({ topic, messages: messages.slice(0, 1) });
    assert.equal(baseOffset, "100");
  },

  "deletes a topic, and a new one of that name is empty": async () => {
    const topic = await create(2);
    await producer.send({ topic, messages: plainMessages(10, 2) });
    await admin.deleteTopics({ topics: [topic] });
    await until("the topic is gone", async () => !(await admin.listTopics()).includes(topic));
    await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: 1 }] });
    await untilReady(topic, 1);
    const fresh = kafka.producer();
    await fresh.connect();
    await fresh.send({ topic, messages: plainMessages(1) });
    await fresh.disconnect();
    await expectAll(topic, plainMessages(1));
  },
};

/** Kills or restarts the broker; settles when that is done. */
function broker(action) {
  return new Promise((done, failed) => {
    // No pipes: a restarted broker would hold them open.
    const child = spawn(BROKER, [action], { stdio: ["ignore", process.stderr, process.stderr] });
    child.on("exit", (status) => (status === 0 ? done() : failed(new Error(`${action} ended with ${status}`))));
  });
}

async function survivesACrash() {
  const survivor = await create(3, { "retention.ms": "-1" });
  const before = mixedMessages(300, 3);
  await producer.send({ topic: survivor, messages: before, compression: CompressionTypes.ZSTD });

  const topic = await create(3);
  const sent = [];
  const retry = { initialRetryTime: 100, maxRetryTime: 500, retries: 200 };
  const patient = new Kafka({ ...options, retry }).producer({ idempotent: true, maxInFlightRequests: 1 });
  await patient.connect();
  const sendSome = async () => {
    const messages = Array.from({ length: 60 }, (_, n) => plainMessage(sent.length + n, 3));
    await patient.send({ topic, messages });
    sent.push(...messages);
  };
  while (sent.length < 3000) await sendSome();
  // Sending goes on while the broker dies, waits while it is away, and goes on after it is back.
  let back = false;
  const crash = broker("kill")
    .then(() => broker("restart"))
    .finally(() => (back = true));
  while (!back) await sendSome();
  await crash;
  for (let n = 0; n < 10; n++) await sendSome();
  await patient.disconnect();
  await expectAll(topic, sent);
  await expectAll(survivor, before);
  assert.equal((await configsOf(survivor))["retention.ms"], "-1");
}
if (BROKER) {
  tests["after SIGKILL under load and a restart every acknowledged record is there once, and the producer goes on"] =
    survivesACrash;
}

let failed = false;
await admin.connect();
await producer.connect();
for (const [sentence, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`PASS kafkajs ${sentence}`);
  } catch (error) {
    failed = true;
    const line = error.stack?.match(/suite\.mjs:(\d+)/)?.[1];
    const why = `${error.name} ${errorType(error)}: ${error.message}`.replace(/\s+/g, " ").slice(0, 400);
    console.log(`FAIL kafkajs ${sentence}: ${why} (line ${line})`);
  }
}
await producer.disconnect();
await admin.disconnect();
process.exit(failed ? 1 : 0);
