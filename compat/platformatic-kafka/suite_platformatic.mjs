// @platformatic/kafka: producer, admin client, and consumers, which are always members of a group. It commits no metadata
// and has no cooperative rebalancing in the classic protocol.

import assert from "node:assert/strict";
import { Admin, Consumer, Producer, compressionsAlgorithms, stringDeserializers, stringSerializers } from "@platformatic/kafka";
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
  mixedMessages,
  plainMessage,
  plainMessages,
  run,
  serveAsMember,
  until,
  untilReceived,
  untilShared,
} from "./suite.mjs";

const TOPIC_RESOURCE = 2;
const SET = 0;
// zstd comes with a later Node.
const CODECS = Object.keys(compressionsAlgorithms).filter((codec) => compressionsAlgorithms[codec].available);

const options = { clientId: "compat", bootstrapBrokers: [BOOTSTRAP], retries: 3, retryDelay: 100 };
// Goes on while the broker is away.
const patient = { ...options, retries: 1000 };
const admin = new Admin(options);
const producer = new Producer({ ...options, serializers: stringSerializers });

/** The name of the protocol error inside whatever the client has wrapped around it. */
function errorType(error) {
  if (error.apiId) return error.apiId;
  const inner = error.errors?.at(-1) ?? error.cause;
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

/** A new topic that takes records. */
async function create(partitions, configs = {}) {
  const topic = freshName();
  const entries = Object.entries(configs).map(([name, value]) => ({ name, value }));
  await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs: entries });
  await untilReady(topic, partitions);
  return topic;
}

/** Waits until all partitions are there and answer: a send of which one partition fails is repeated by this client for all. */
async function untilReady(topic, count) {
  const notYet = (error) => {
    if (!/Unknown topic/.test(error.message) && errorType(error) !== "NOT_LEADER_OR_FOLLOWER") throw error;
    return [];
  };
  await until(`${topic} has ${count} partitions`, async () => (await offsetsAt(topic, -1).catch(notYet)).length === count);
}

/** The offset of each partition for a timestamp: -2 stands for the first, -1 for the end. */
async function offsetsAt(topic, timestamp) {
  const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true });
  const partitions = topics.get(topic).partitions.map((_, partitionIndex) => ({ partitionIndex, timestamp: BigInt(timestamp) }));
  const [listed] = await admin.listOffsets({ topics: [{ name: topic, partitions }] });
  return listed.partitions.sort((a, b) => a.partitionIndex - b.partitionIndex).map(({ offset }) => Number(offset));
}

/** The messages as this client takes them. */
function forClient(topic, messages) {
  return messages.map(({ key, value, timestamp, ...rest }) => ({
    ...rest,
    topic,
    key: key ?? undefined,
    value: value ?? undefined,
    timestamp: BigInt(timestamp),
  }));
}

function send(topic, messages, how = {}) {
  return producer.send({ messages: forClient(topic, messages), acks: -1, ...how });
}

/** A consumer that is quick to notice what happens in its group. */
function consumerOf(groupId, groupInstanceId) {
  const consumer = new Consumer({
    ...patient,
    groupId,
    ...(groupInstanceId && { groupInstanceId }),
    sessionTimeout: SESSION_MS,
    rebalanceTimeout: SESSION_MS,
    heartbeatInterval: 200,
    maxWaitTime: 100,
    deserializers: stringDeserializers,
  });
  // Without a listener an error that it recovers from would end the program.
  consumer.on("error", () => {});
  return consumer;
}

/** Everything in the topic from the given offsets on, or from the first, in the shape in which it was sent. */
async function read(topic, starts) {
  const ends = await offsetsAt(topic, -1);
  starts ??= await offsetsAt(topic, -2);
  const count = ends.reduce((sum, end, partition) => sum + end - starts[partition], 0);
  const offsets = starts.map((offset, partition) => ({ topic, partition, offset: BigInt(offset) }));
  const consumer = consumerOf(freshName());
  const stream = await consumer.consume({ topics: [topic], mode: "manual", offsets, autocommit: false });
  const records = [];
  stream.on("data", ({ partition, offset, key, value, headers, timestamp }) =>
    records.push({
      partition,
      offset: Number(offset),
      key: key ?? null,
      value: value ?? null,
      headers: Object.fromEntries(headers),
      timestamp: `${timestamp}`,
    }),
  );
  await until(`the end of ${topic}`, () => records.length >= count);
  await consumer.close(true);
  return records;
}

/** Fails unless the topic holds exactly these messages, each partition's in order and at dense offsets from 0. */
async function expectAll(topic, messages) {
  expectRecords(await read(topic), messages);
}

async function configsOf(topic) {
  const resources = [{ resourceType: TOPIC_RESOURCE, resourceName: topic }];
  const [{ configs }] = await admin.describeConfigs({ resources });
  return Object.fromEntries(configs.map(({ name, value }) => [name, value]));
}

/** A new member of the group; `changed` hears of everything that happens to it. */
async function join(group, topic, { instance, fallbackMode = "earliest", autocommit = true, changed = () => {} } = {}) {
  const consumer = consumerOf(group, instance);
  const member = { consumer, owned: [], received: [], settled: false, joins: 0, leave: () => consumer.close(true) };
  let fetches = 0;
  consumer.on("consumer:group:join", ({ assignments }) => {
    member.owned = assignments.find((assignment) => assignment.topic === topic)?.partitions ?? [];
    member.joins++;
    member.settled = false;
    fetches = 0;
    changed(member);
  });
  const stream = await consumer.consume({ topics: [topic], mode: "committed", fallbackMode, autocommit });
  // The first may have been under way before the rebalance, and this client delivers also what is no longer its own.
  stream.on("fetch", () => {
    if (++fetches !== 2) return;
    member.settled = true;
    changed(member);
  });
  stream.on("error", (error) => (member.error = error));
  stream.on("data", ({ partition, offset, value }) => {
    member.received.push({ partition, offset: Number(offset), value });
    changed(member);
  });
  return member;
}

/** What the group has committed for each partition; -1 where that is nothing. */
async function committed(groupId, topic) {
  const partitionIndexes = (await offsetsAt(topic, -1)).map((_, partition) => partition);
  const groups = [{ groupId, topics: [{ name: topic, partitionIndexes }] }];
  const [{ topics }] = await admin.listConsumerGroupOffsets({ groups });
  return topics[0].partitions
    .sort((a, b) => a.partitionIndex - b.partitionIndex)
    .map(({ committedOffset }) => Number(committedOffset));
}

/** Sets what a group without members has committed for each partition. */
function alter(groupId, topic, offsets) {
  const partitionOffsets = offsets.map((offset, partition) => ({ partition, offset: BigInt(offset) }));
  return admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets }] });
}

/** Fails if the group has members that subscribe to the topic. */
function forget(groupId, topic, partitionIndexes) {
  return admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes }] });
}

/** How many records of each partition the group has still before it. */
async function lag(group, topic) {
  const offsets = await committed(group, topic);
  return (await offsetsAt(topic, -1)).map((end, partition) => end - offsets[partition]);
}

async function describe(group) {
  return (await admin.describeGroups({ groups: [group] })).get(group);
}

/** Commits an offset for each partition, as a member does. */
function commit({ consumer }, topic, offsets) {
  return consumer.commit({
    offsets: offsets.map((offset, partition) => ({ topic, partition, offset: BigInt(offset), leaderEpoch: 0 })),
  });
}

/** Sends more of the messages, and waits until the members have received each one once and have committed that. */
async function exchange(group, topic, partitions, sent, ...members) {
  const more = plainMessages(10 * partitions, partitions, sent.length);
  await send(topic, more);
  sent.push(...more);
  await untilReceived(sent, ...members);
  await until("all of that is committed", async () => (await lag(group, topic)).every((count) => count === 0));
}

const tests = {
  "creates a topic with partitions and configs, lists and describes it": async () => {
    const topic = freshName();
    const configs = [{ name: "max.message.bytes", value: "200000" }, { name: "retention.ms", value: "-1" }];
    const [created] = await admin.createTopics({ topics: [topic], partitions: 4, replicas: 1, configs });
    assert.equal(created.partitions, 4);
    assert.equal(created.configuration["max.message.bytes"], "200000");
    await untilReady(topic, 4);
    assert((await admin.listTopics()).includes(topic));
    const { brokers, topics } = await admin.metadata({ topics: [topic] });
    assert(topics.get(topic).partitions.every(({ leader }) => brokers.has(leader)));
    const described = await configsOf(topic);
    assert.equal(described["retention.ms"], "-1");
    assert.equal(described["segment.bytes"], "1073741824");
  },

  "refuses a topic that exists, an illegal name, an unknown config and no partitions": async () => {
    const make = (topic, rest = {}) => admin.createTopics({ topics: [topic], partitions: 1, replicas: 1, ...rest });
    const topic = await create(1);
    await refused(make(topic), "TOPIC_ALREADY_EXISTS");
    await refused(make("no/slashes"), "INVALID_TOPIC_EXCEPTION");
    await refused(make(`${topic}.x`, { configs: [{ name: "no.such", value: "1" }] }), "INVALID_CONFIG");
    await refused(make(`${topic}.y`, { partitions: 0 }), "INVALID_PARTITIONS");
  },

  ...Object.fromEntries(
    CODECS.map((compression) => [
      `sends keys, headers, nulls and timestamps with ${compression}, and they are read back in order`,
      async () => {
        const topic = await create(3);
        const messages = mixedMessages(600, 3);
        await send(topic, messages, { compression });
        await expectAll(topic, messages);
      },
    ]),
  ),

  "batches of 10,000 records and a record of 900 KB come back in order": async () => {
    const topic = await create(1);
    const messages = [...plainMessages(20_000), { ...plainMessage(20_000), value: "x".repeat(900 * 1024) }];
    await send(topic, messages.slice(0, 10_000), { compression: "lz4" });
    await send(topic, messages.slice(10_000, 20_000));
    await send(topic, messages.slice(20_000));
    await expectAll(topic, messages);
  },

  "acks 0, 1 and all store records in the order of sending": async () => {
    const topic = await create(1);
    const messages = plainMessages(300);
    for (const [n, acks] of [0, 1, -1].entries()) await send(topic, messages.slice(n * 100, n * 100 + 100), { acks });
    await expectAll(topic, messages);
  },

  "an idempotent producer writes each record once and learns its offset": async () => {
    const topic = await create(3);
    const messages = plainMessages(3000, 3);
    const idempotent = new Producer({ ...options, idempotent: true, serializers: stringSerializers });
    for (let n = 0; n < 3000; n += 300) {
      const { offsets } = await idempotent.send({ messages: forClient(topic, messages.slice(n, n + 300)), acks: -1 });
      assert.deepEqual(offsets.map(({ offset }) => offset), Array(3).fill(BigInt(n / 3)));
    }
    await idempotent.close();
    await expectAll(topic, messages);
  },

  "reads from any offset, and finds offsets by timestamp, the earliest and the latest": async () => {
    const topic = await create(1);
    const messages = mixedMessages(500, 1);
    await send(topic, messages, { compression: "gzip" });
    for (const start of [0, 217, 499]) {
      const values = (await read(topic, [start])).map(({ offset, value }) => [offset, value]);
      assert.deepEqual(values, messages.map(({ value }, offset) => [offset, value]).slice(start));
    }
    assert.deepEqual(await offsetsAt(topic, START_MS + 123 * STEP_MS), [123]);
    assert.deepEqual(await offsetsAt(topic, START_MS + 123 * STEP_MS + 1), [124]);
    assert.deepEqual(await offsetsAt(topic, START_MS + 500 * STEP_MS), [-1]);
    assert.deepEqual(await offsetsAt(topic, -2), [0]);
    assert.deepEqual(await offsetsAt(topic, -1), [500]);
  },

  "an unknown topic is an error for producer, consumer and admin, and is not created": async () => {
    const topic = freshName();
    await assert.rejects(send(topic, plainMessages(1)), /Unknown topic/);
    const consumer = new Consumer({ ...options, groupId: freshName() });
    await assert.rejects(consumer.consume({ topics: [topic] }), /Unknown topic/);
    await consumer.close(true);
    await refused(admin.deleteTopics({ topics: [topic] }), "UNKNOWN_TOPIC_OR_PARTITION");
    assert(!(await admin.listTopics()).includes(topic));
  },

  "an oversized record is refused and its neighbours are stored": async () => {
    const topic = await create(1, { "max.message.bytes": "10000" });
    const small = plainMessages(2);
    await send(topic, small.slice(0, 1));
    await refused(send(topic, [{ ...small[0], value: "x".repeat(20_000) }]), "MESSAGE_TOO_LARGE");
    await send(topic, small.slice(1));
    await expectAll(topic, small);
  },

  "alters one config of a topic, adds partitions, deletes records and the topic": async () => {
    const topic = await create(1, { "max.message.bytes": "50000" });
    const configs = [{ name: "retention.ms", value: "7200000", configOperation: SET }];
    await admin.incrementalAlterConfigs({ resources: [{ resourceType: TOPIC_RESOURCE, resourceName: topic, configs }] });
    await until("the new config is described", async () => (await configsOf(topic))["retention.ms"] === "7200000");
    assert.equal((await configsOf(topic))["max.message.bytes"], "50000");
    await admin.createPartitions({ topics: [{ name: topic, count: 2, assignments: null }] });
    await untilReady(topic, 2);
    await send(topic, plainMessages(40, 2));
    await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 1, offset: 15n }] }] });
    assert.deepEqual(await offsetsAt(topic, -2), [0, 15]);
    const left = (await read(topic)).filter(({ partition }) => partition === 1);
    assert.deepEqual(left.map(({ offset }) => offset), [15, 16, 17, 18, 19]);
    await admin.deleteTopics({ topics: [topic] });
    await until("the topic is gone", async () => !(await admin.listTopics()).includes(topic));
  },

  "three members share the partitions, and the others take over when one leaves and when one is killed": async () => {
    const [topic, group, sent] = [await create(6), freshName(), []];
    const first = await join(group, topic);
    const second = await join(group, topic);
    const third = joinElsewhere(group, topic);
    await untilShared(6, first, second, third);
    await exchange(group, topic, 6, sent, first, second, third);
    await second.leave();
    await untilShared(6, first, third);
    await exchange(group, topic, 6, sent, first, second, third);
    const killed_ms = Date.now();
    third.kill();
    await untilShared(6, first);
    assert(Date.now() - killed_ms > SESSION_MS - 1000, "its partitions were taken away before its session was over");
    await exchange(group, topic, 6, sent, first, second, third);
    await first.leave();
  },

  "a static member restarts and gets its partitions back, and the other member notices nothing": async () => {
    const [topic, group, sent] = [await create(4), freshName(), []];
    const first = joinElsewhere(group, topic, { instance: "a" });
    const second = await join(group, topic, { instance: "b" });
    await untilShared(4, first, second);
    await exchange(group, topic, 4, sent, first, second);
    const { joins } = second;
    first.kill();
    const again = await join(group, topic, { instance: "a" });
    assert.deepEqual(again.owned, first.owned);
    await exchange(group, topic, 4, sent, first, second, again);
    assert.equal(second.joins, joins);
    const { members } = await describe(group);
    assert.deepEqual([...members.values()].map(({ groupInstanceId }) => groupInstanceId).sort(), ["a", "b"]);
    await again.leave();
    await second.leave();
  },

  "goes on where a member has committed by hand": async () => {
    const [topic, group, messages] = [await create(1), freshName(), plainMessages(20)];
    await send(topic, messages);
    const first = await join(group, topic, { autocommit: false });
    await untilReceived(messages, first);
    assert.deepEqual(await committed(group, topic), [-1]);
    await commit(first, topic, [10]);
    const [{ topics }] = await admin.listConsumerGroupOffsets({ groups: [group] });
    const partitions = [{ partitionIndex: 0, committedOffset: 10n, committedLeaderEpoch: 0, metadata: "" }];
    assert.deepEqual(topics, [{ name: topic, partitions }]);
    await first.leave();
    const second = await join(group, topic);
    await untilReceived(messages.slice(10), second);
    assert.equal(second.received[0].offset, 10);
    await second.leave();
  },

  "goes on where automatic commits have ended": async () => {
    const [topic, group, messages] = [await create(1), freshName(), plainMessages(30)];
    await send(topic, messages.slice(0, 20));
    const first = await join(group, topic);
    await untilReceived(messages.slice(0, 20), first);
    await first.leave();
    assert.deepEqual(await committed(group, topic), [20]);
    await send(topic, messages.slice(20));
    const second = await join(group, topic);
    await untilReceived(messages.slice(20), second);
    await second.leave();
  },

  "a group that has committed nothing starts with the earliest or behind the latest record, or fails": async () => {
    const [topic, messages] = [await create(1), plainMessages(30)];
    await send(topic, messages.slice(0, 20));
    const strict = await join(freshName(), topic, { fallbackMode: "fail" });
    await until("the strict one fails", () => strict.error);
    assert.match(strict.error.message, /no committed offset on partition 0/);
    const late = await join(freshName(), topic, { fallbackMode: "latest" });
    await until("the late one has its position", () => late.settled);
    const early = await join(freshName(), topic);
    await send(topic, messages.slice(20));
    await untilReceived(messages, early);
    await untilReceived(messages.slice(20), late);
    for (const member of [strict, early, late]) await member.leave();
  },

  "a committed offset out of range is an error": async () => {
    const [topic, group] = [await create(1), freshName()];
    await send(topic, plainMessages(20));
    await alter(group, topic, [500]);
    const member = await join(group, topic);
    await until("the member fails", () => member.error);
    assert.equal(errorType(member.error), "OFFSET_OUT_OF_RANGE");
    await member.leave();
  },

  "lists and describes a group, and deletes it when it is empty": async () => {
    const [topic, group] = [await create(4), freshName()];
    const members = [await join(group, topic), await join(group, topic)];
    await untilShared(4, ...members);
    const listed = { id: group, state: "STABLE", groupType: "classic", protocolType: "consumer" };
    assert.deepEqual((await admin.listGroups({ states: ["STABLE"], types: ["classic"] })).get(group), listed);
    assert.equal((await admin.listGroups({ states: ["EMPTY"], types: ["classic"] })).get(group), undefined);
    const described = await describe(group);
    assert.equal(described.state, "STABLE");
    assert.equal(described.protocol, "roundrobin");
    for (const { consumer, owned } of members) {
      const { clientId, metadata, assignments } = described.members.get(consumer.memberId);
      assert.equal(clientId, "compat");
      assert.deepEqual(metadata.topics, [topic]);
      assert.deepEqual(assignments.get(topic).partitions, owned);
    }
    await refused(admin.deleteGroups({ groups: [group] }), "NON_EMPTY_GROUP");
    for (const member of members) await member.leave();
    assert.equal((await describe(group)).state, "EMPTY");
    await admin.deleteGroups({ groups: [group] });
    assert.equal((await admin.listGroups({ types: ["classic"] })).get(group), undefined);
    await refused(admin.deleteGroups({ groups: [group] }), "GROUP_ID_NOT_FOUND");
  },

  "shows the lag of a group, and alters and deletes its offsets": async () => {
    const [topic, group, messages] = [await create(2), freshName(), plainMessages(20, 2)];
    await send(topic, messages);
    await alter(group, topic, [4, 7]);
    assert.deepEqual(await lag(group, topic), [6, 3]);
    const member = await join(group, topic, { autocommit: false });
    await untilReceived(messages.filter((_, n) => n >= (n % 2 ? 14 : 8)), member);
    assert.deepEqual(await member.consumer.getLag({ topics: [topic] }), new Map([[topic, [6n, 3n]]]));
    await commit(member, topic, [10, 9]);
    assert.deepEqual(await lag(group, topic), [0, 1]);
    await refused(alter(group, topic, [0, 0]), "UNKNOWN_MEMBER_ID");
    await refused(forget(group, topic, [0, 1]), "GROUP_SUBSCRIBED_TO_TOPIC");
    await member.leave();
    await alter(group, topic, [2, 3]);
    assert.deepEqual(await lag(group, topic), [8, 7]);
    assert.deepEqual(await forget(group, topic, [0, 1]), [{ name: topic, partitionIndexes: [0, 1] }]);
    assert.deepEqual(await committed(group, topic), [-1, -1]);
  },
};

async function survivesACrash() {
  const survivor = await create(3, { "retention.ms": "-1" });
  const before = mixedMessages(300, 3);
  await send(survivor, before, { compression: "snappy" });

  const topic = await create(3);
  const sent = [];
  const steady = new Producer({ ...patient, idempotent: true, serializers: stringSerializers });
  const sendSome = async () => {
    const messages = plainMessages(60, 3, sent.length);
    await steady.send({ messages: forClient(topic, messages), acks: -1 });
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
  await steady.close();
  await expectAll(topic, sent);
  await expectAll(survivor, before);
  assert.equal((await configsOf(survivor))["retention.ms"], "-1");
}

async function commitsSurviveACrash() {
  const [topic, group, messages] = [await create(2), freshName(), plainMessages(20, 2)];
  await send(topic, messages);
  const first = await join(group, topic, { autocommit: false });
  await untilReceived(messages, first);
  await commit(first, topic, [4, 7]);
  await first.leave();
  await broker("restart");
  const second = await join(group, topic, { autocommit: false });
  await untilReceived(messages.filter((_, n) => n >= (n % 2 ? 14 : 8)), second);
  assert.deepEqual(await committed(group, topic), [4, 7]);
  await second.leave();
}

async function groupSurvivesACrash() {
  const [topic, group, sent] = [await create(6), freshName(), []];
  const [first, second] = [await join(group, topic), await join(group, topic)];
  await untilShared(6, first, second);
  await exchange(group, topic, 6, sent, first, second);
  await broker("kill");
  const joining = join(group, topic);
  await broker("restart");
  const third = await joining;
  await untilShared(6, first, second, third);
  await exchange(group, topic, 6, sent, first, second, third);
  for (const member of [first, second, third]) await member.leave();
}

const crashTests = {
  "after SIGKILL under load and a restart every acknowledged record is there once, and the producer goes on": survivesACrash,
  "committed offsets are there after SIGKILL and a restart, and the group goes on from them": commitsSurviveACrash,
  "a group stays together through SIGKILL and a restart, while a third member joins": groupSurvivesACrash,
};

await serveAsMember(join);
const status = await run("platformatic-kafka", { ...tests, ...(BROKER && crashTests) }, errorType);
await producer.close();
await admin.close();
process.exit(status);
