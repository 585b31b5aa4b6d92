// kafkajs: producer, admin client, and consumers, which are always members of a group. It knows neither static members nor
// cooperative rebalancing.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { init as loadZstd, compress as zstd, decompress as unzstd } from "@bokuweb/zstd-wasm";
import kafkajs from "kafkajs";
import snappy from "kafkajs-snappy";
import lz4 from "lz4-napi";
import * as common from "./suite.mjs";
import {
  BOOTSTRAP,
  BROKER,
  SESSION_MS,
  START_MS,
  STEP_MS,
  broker,
  expectRecords,
  freshName,
  joinElsewhere,
  plainMessage,
  plainMessages,
  run,
  serveAsMember,
  until,
  untilReceived,
  untilShared,
} from "./suite.mjs";

const { AssignerProtocol, CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs;

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
// Goes on while the broker is away.
const patient = new Kafka({ ...options, retry: { initialRetryTime: 100, maxRetryTime: 500, retries: 200 } });
const admin = kafka.admin();
const producer = kafka.producer();

/** The name of the protocol error inside whatever the client has wrapped around it. */
function errorType(error) {
  if (error.type) return error.type;
  const inner = error.errors?.[0] ?? error.groups?.[0].error ?? error.cause;
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
  const topic = freshName();
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, configEntries }] });
  await untilReady(topic, numPartitions);
  return topic;
}

/** As the other clients send them, and with a header that is there twice. */
function mixedMessages(count, partitions) {
  return common.mixedMessages(count, partitions).map((message) => {
    const { n } = message.headers;
    return n ? { ...message, headers: { ...message.headers, n: [n, "again"] } } : message;
  });
}

/** A consumer that is quick to notice what happens in its group. */
function consumerOf(groupId) {
  return patient.consumer({ groupId, sessionTimeout: SESSION_MS, heartbeatInterval: 200, maxWaitTimeInMs: 100 });
}

/** Everything in the topic, in the shape in which it was sent, by the only member of a group. */
async function read(topic) {
  const bounds = await admin.fetchTopicOffsets(topic);
  const unread = new Set(bounds.filter(({ low, high }) => low !== high).map(({ partition }) => partition));
  const records = [];
  const reader = consumerOf(freshName());
  await reader.connect();
  await reader.subscribe({ topics: [topic], fromBeginning: true });
  await reader.run({
    eachBatch: async ({ batch: { partition, messages, highWatermark } }) => {
      for (const { offset, key, value, headers, timestamp } of messages) {
        const text = (bytes) => (Array.isArray(bytes) ? bytes.map(text) : bytes && `${bytes}`);
        records.push({
          partition,
          offset: Number(offset),
          key: text(key),
          value: text(value),
          headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, text(value)])),
          timestamp,
        });
        if (Number(offset) + 1 === Number(highWatermark)) unread.delete(partition);
      }
    },
  });
  await until(`the end of ${topic}`, () => unread.size === 0);
  await reader.disconnect();
  return records;
}

/** Fails unless the topic holds exactly these messages, each partition's in order and at dense offsets from 0. */
async function expectAll(topic, messages) {
  expectRecords(await read(topic), messages);
}

async function configsOf(topic) {
  const { resources } = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] });
  return Object.fromEntries(resources[0].configEntries.map(({ configName, configValue }) => [configName, configValue]));
}

/** A new member of the group; `changed` hears of everything that happens to it. */
async function join(group, topic, { fromBeginning = true, autoCommit = true, changed = () => {} } = {}) {
  const consumer = consumerOf(group);
  const member = { consumer, owned: [], received: [], settled: false, leave: () => consumer.disconnect() };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.owned = payload.memberAssignment[topic] ?? [];
    member.settled = false;
    changed(member);
  });
  consumer.on(consumer.events.FETCH, () => {
    if (member.settled) return;
    member.settled = true;
    changed(member);
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning });
  await consumer.run({
    autoCommit,
    eachMessage: async ({ partition, message: { offset, value } }) => {
      member.received.push({ partition, offset: Number(offset), value: `${value}` });
      changed(member);
    },
  });
  return member;
}

/** The offset and the metadata of each partition, in their order; -1 where nothing is committed. */
async function committed(groupId, topic) {
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] });
  return partitions.sort((a, b) => a.partition - b.partition).map(({ offset, metadata }) => [Number(offset), metadata]);
}

/** How many records of each partition the group has still before it. */
async function lag(groupId, topic) {
  const offsets = await committed(groupId, topic);
  const ends = await admin.fetchTopicOffsets(topic);
  return ends.sort((a, b) => a.partition - b.partition).map(({ high }, n) => Number(high) - offsets[n][0]);
}

async function describe(group) {
  const { groups } = await admin.describeGroups([group]);
  return groups[0];
}

/** Sends 60 more of the messages, and waits until the members have received each one once and have committed that. */
async function exchange(group, topic, sent, ...members) {
  const more = plainMessages(60, 6, sent.length);
  await producer.send({ topic, messages: more });
  sent.push(...more);
  await untilReceived(sent, ...members);
  await until("all of that is committed", async () => (await lag(group, topic)).every((count) => count === 0));
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
    const records = await read(topic);
    assert.equal(records.length, 10);
    assert(records.every(({ timestamp }) => Number(timestamp) > START_MS + 3_000_000));
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
    const topic = freshName();
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
    const left = (await read(topic)).map(({ offset, value }) => [offset, value]);
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

  "three members share the partitions, and the others take over when one leaves and when one is killed": async () => {
    const [topic, group, sent] = [await create(6), freshName(), []];
    const first = await join(group, topic);
    const second = await join(group, topic);
    const third = joinElsewhere(group, topic);
    await untilShared(6, first, second, third);
    await exchange(group, topic, sent, first, second, third);
    await second.leave();
    await untilShared(6, first, third);
    await exchange(group, topic, sent, first, second, third);
    const killed_ms = Date.now();
    third.kill();
    await untilShared(6, first);
    assert(Date.now() - killed_ms > SESSION_MS - 1000, "its partitions were taken away before its session was over");
    await exchange(group, topic, sent, first, second, third);
    await first.leave();
  },

  "goes on where a member has committed by hand, and the metadata comes back": async () => {
    const [topic, group, messages] = [await create(1), freshName(), plainMessages(20)];
    await producer.send({ topic, messages });
    const first = await join(group, topic, { autoCommit: false });
    await untilReceived(messages, first);
    assert.deepEqual(await committed(group, topic), [[-1, null]]);
    await first.consumer.commitOffsets([{ topic, partition: 0, offset: "10", metadata: "half of it" }]);
    assert.deepEqual(await committed(group, topic), [[10, "half of it"]]);
    await first.leave();
    const second = await join(group, topic);
    await untilReceived(messages.slice(10), second);
    assert.equal(second.received[0].offset, 10);
    await second.leave();
  },

  "goes on where automatic commits have ended": async () => {
    const [topic, group, messages] = [await create(1), freshName(), plainMessages(30)];
    await producer.send({ topic, messages: messages.slice(0, 20) });
    const first = await join(group, topic);
    await untilReceived(messages.slice(0, 20), first);
    await first.leave();
    assert.deepEqual(await committed(group, topic), [[20, null]]);
    await producer.send({ topic, messages: messages.slice(20) });
    const second = await join(group, topic);
    await untilReceived(messages.slice(20), second);
    await second.leave();
  },

  "a group that has committed nothing starts with the earliest or behind the latest record": async () => {
    const [topic, messages] = [await create(1), plainMessages(30)];
    await producer.send({ topic, messages: messages.slice(0, 20) });
    const late = await join(freshName(), topic, { fromBeginning: false });
    await until("the late one has its position", () => late.settled);
    const early = await join(freshName(), topic);
    await producer.send({ topic, messages: messages.slice(20) });
    await untilReceived(messages, early);
    await untilReceived(messages.slice(20), late);
    await early.leave();
    await late.leave();
  },

  "a committed offset out of range is replaced by the earliest or the latest": async () => {
    const [topic, messages] = [await create(1), plainMessages(110)];
    const [before, behind] = [freshName(), freshName()];
    await producer.send({ topic, messages: messages.slice(0, 100) });
    for (const [group, offset] of [[before, "10"], [behind, "500"]]) {
      const member = await join(group, topic, { autoCommit: false });
      await member.consumer.commitOffsets([{ topic, partition: 0, offset }]);
      await member.leave();
    }
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "42" }] });
    const late = await join(behind, topic, { fromBeginning: false });
    await until("the late one has its position", () => late.settled);
    const early = await join(before, topic);
    await producer.send({ topic, messages: messages.slice(100) });
    await untilReceived(messages.slice(42), early);
    await untilReceived(messages.slice(100), late);
    await early.leave();
    await late.leave();
  },

  "seeks in its partitions while it runs": async () => {
    const [topic, messages] = [await create(1), plainMessages(20)];
    await producer.send({ topic, messages });
    const member = await join(freshName(), topic);
    await untilReceived(messages, member);
    member.consumer.seek({ topic, partition: 0, offset: "15" });
    await untilReceived([...messages, ...messages.slice(15)], member);
    await member.leave();
  },

  "lists and describes a group, and deletes it when it is empty": async () => {
    const [topic, group] = [await create(4), freshName()];
    const members = [await join(group, topic), await join(group, topic)];
    await untilShared(4, ...members);
    const { groups } = await admin.listGroups();
    assert.equal(groups.find(({ groupId }) => groupId === group)?.protocolType, "consumer");
    const described = await describe(group);
    assert.equal(described.errorCode, 0);
    assert.equal(described.state, "Stable");
    assert.equal(described.protocol, "RoundRobinAssigner");
    assert.deepEqual(described.members.map(({ clientId }) => clientId), ["compat", "compat"]);
    const { MemberAssignment, MemberMetadata } = AssignerProtocol;
    const assigned = described.members.map(({ memberAssignment }) => MemberAssignment.decode(memberAssignment).assignment[topic]);
    assert.deepEqual(assigned.map(String).sort(), members.map(({ owned }) => String(owned)).sort());
    for (const { memberMetadata } of described.members) assert.deepEqual(MemberMetadata.decode(memberMetadata).topics, [topic]);
    await refused(admin.deleteGroups([group]), "NON_EMPTY_GROUP");
    for (const member of members) await member.leave();
    assert.equal((await describe(group)).state, "Empty");
    await admin.deleteGroups([group]);
    assert.equal((await describe(group)).state, "Dead");
    assert(!(await admin.listGroups()).groups.some(({ groupId }) => groupId === group));
    await refused(admin.deleteGroups([group]), "GROUP_ID_NOT_FOUND");
  },

  "shows the lag of a group, and sets and resets its offsets while it is empty": async () => {
    const [topic, group, messages] = [await create(2), freshName(), plainMessages(20, 2)];
    await producer.send({ topic, messages });
    const partitions = [{ partition: 0, offset: "4" }, { partition: 1, offset: "7" }];
    await admin.setOffsets({ groupId: group, topic, partitions });
    assert.deepEqual(await lag(group, topic), [6, 3]);
    const member = await join(group, topic);
    await untilReceived(messages.filter((_, n) => n >= (n % 2 ? 14 : 8)), member);
    await until("it has committed that", async () => `${await lag(group, topic)}` === "0,0");
    await assert.rejects(admin.setOffsets({ groupId: group, topic, partitions }), /current state: Stable/);
    await member.leave();
    await admin.resetOffsets({ groupId: group, topic, earliest: true });
    // This client writes -2 for the first offset.
    assert.deepEqual(await committed(group, topic), [[-2, null], [-2, null]]);
  },
};

async function survivesACrash() {
  const survivor = await create(3, { "retention.ms": "-1" });
  const before = mixedMessages(300, 3);
  await producer.send({ topic: survivor, messages: before, compression: CompressionTypes.ZSTD });

  const topic = await create(3);
  const sent = [];
  const steady = patient.producer({ idempotent: true, maxInFlightRequests: 1 });
  await steady.connect();
  const sendSome = async () => {
    const messages = Array.from({ length: 60 }, (_, n) => plainMessage(sent.length + n, 3));
    await steady.send({ topic, messages });
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
  await steady.disconnect();
  await expectAll(topic, sent);
  await expectAll(survivor, before);
  assert.equal((await configsOf(survivor))["retention.ms"], "-1");
}
async function commitsSurviveACrash() {
  const [topic, group, messages] = [await create(2), freshName(), plainMessages(20, 2)];
  await producer.send({ topic, messages });
  const first = await join(group, topic, { autoCommit: false });
  await untilReceived(messages, first);
  await first.consumer.commitOffsets([
    { topic, partition: 0, offset: "4", metadata: "four" },
    { topic, partition: 1, offset: "7" },
  ]);
  await first.leave();
  await broker("restart");
  const second = await join(group, topic, { autoCommit: false });
  await untilReceived(messages.filter((_, n) => n >= (n % 2 ? 14 : 8)), second);
  assert.deepEqual(await committed(group, topic), [[4, "four"], [7, null]]);
  await second.leave();
}

async function groupSurvivesACrash() {
  const [topic, group, sent] = [await create(6), freshName(), []];
  const [first, second] = [await join(group, topic), await join(group, topic)];
  await untilShared(6, first, second);
  await exchange(group, topic, sent, first, second);
  await broker("kill");
  const joining = join(group, topic);
  await broker("restart");
  const third = await joining;
  await untilShared(6, first, second, third);
  await exchange(group, topic, sent, first, second, third);
  for (const member of [first, second, third]) await member.leave();
}

const crashTests = {
  "after SIGKILL under load and a restart every acknowledged record is there once, and the producer goes on": survivesACrash,
  "committed offsets are there after SIGKILL and a restart, and the group goes on from them": commitsSurviveACrash,
  "a group stays together through SIGKILL and a restart, while a third member joins": groupSurvivesACrash,
};

await serveAsMember(join);
await admin.connect();
await producer.connect();
const status = await run("kafkajs", { ...tests, ...(BROKER && crashTests) }, errorType);
await producer.disconnect();
await admin.disconnect();
process.exit(status);
