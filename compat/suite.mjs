// What the Node suites share: running the tests, the messages they send, and a broker that can be crashed.

import assert from "node:assert/strict";
import { fork, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

/** The broker, and the command that kills and restarts it; no command for a broker that is not ours. */
export const { BOOTSTRAP, BROKER } = process.env;
/** Generous: a process of its own, for a member, takes long to start when the machine is busy. */
const DEADLINE_MS = 60_000;
/** The shortest session that a broker allows. */
export const SESSION_MS = 6000;
/** An hour ago: recent enough for every retention, and unlike any time that a broker would put in itself. */
export const START_MS = Date.now() - 3_600_000;
export const STEP_MS = 1000;

/** A name for a topic or a group that no other run has used. */
export function freshName() {
  return `compat.${randomUUID().slice(0, 13)}`;
}

/** Fails unless the condition becomes true in time. */
export async function until(what, condition) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end; await sleep(10)) if (await condition()) return;
  assert.fail(`not in time: ${what}`);
}

/** Runs the tests, each under the sentence that it proves; the exit status. `kind` names an error as the client knows it. */
export async function run(client, tests, kind) {
  let status = 0;
  for (const [sentence, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`PASS ${client} ${sentence}`);
    } catch (error) {
      status = 1;
      const line = error.stack?.match(/suite_\w+\.mjs:(\d+)/)?.[1];
      const why = `${error.name} ${kind(error)}: ${error.message}`.replace(/\s+/g, " ").slice(0, 400);
      console.log(`FAIL ${client} ${sentence}: ${why} (line ${line})`);
    }
  }
  return status;
}

/** Messages with and without key, value and headers, one step of time apart, spread evenly over the partitions. */
export function mixedMessages(count, partitions) {
  return Array.from({ length: count }, (_, n) => ({
    partition: n % partitions,
    key: n % 7 === 0 ? null : `key-${n % 10}`,
    value: n % 11 === 0 ? null : `value ${n} `.repeat((n % 20) + 1),
    headers: n % 3 === 0 ? {} : { n: `${n}`, empty: "", Größe: "größer" },
    timestamp: `${START_MS + n * STEP_MS}`,
  }));
}

/** A small numbered message with nothing but a value. */
export function plainMessage(n, partitions = 1) {
  return { partition: n % partitions, key: null, value: `record ${n}`, headers: {}, timestamp: `${START_MS + n}` };
}

/** So many of them, numbered from the first on. */
export function plainMessages(count, partitions = 1, first = 0) {
  return Array.from({ length: count }, (_, n) => plainMessage(first + n, partitions));
}

/** Fails unless these records are the messages, each partition's in order and at dense offsets from 0. */
export function expectRecords(records, messages) {
  for (const partition of new Set(messages.map((message) => message.partition))) {
    const got = records.filter((record) => record.partition === partition);
    const wanted = messages.filter((message) => message.partition === partition);
    assert.equal(got.length, wanted.length, `${got.length} records in partition ${partition} instead of ${wanted.length}`);
    got.forEach((record, offset) => assert.deepEqual(record, { ...wanted[offset], offset }));
  }
}

/** Kills or restarts the broker; settles when that is done. */
export function broker(action) {
  return new Promise((done, failed) => {
    // No pipes: a restarted broker would hold them open.
    const child = spawn(BROKER, [action], { stdio: ["ignore", process.stderr, process.stderr] });
    child.on("exit", (status) => (status === 0 ? done() : failed(new Error(`${action} ended with ${status}`))));
  });
}

// A member of a group, of whatever client, is an object of which `owned` lists the partitions that it has right now, `received`
// the { partition, offset, value } that it has read, and `settled` tells whether it fetches from just these partitions.

/** A member in a process of its own, which `kill` ends without a word to the broker. The suite's file serves it. */
export function joinElsewhere(group, topic, options = {}) {
  const child = fork(process.argv[1], ["member", group, topic, JSON.stringify(options)]);
  const member = { owned: [], received: [], settled: false, kill: () => child.kill("SIGKILL") };
  child.on("message", (state) => Object.assign(member, state));
  return member;
}

/** In the process of joinElsewhere: joins as it was told, reports every change, and never returns. Elsewhere: nothing. */
export async function serveAsMember(join) {
  if (process.argv[2] !== "member") return;
  const [group, topic, options] = process.argv.slice(3);
  process.on("disconnect", () => process.exit(1));
  const changed = ({ owned, received, settled }) => process.send({ owned, received, settled });
  await join(group, topic, { ...JSON.parse(options), changed });
  await new Promise(() => {});
}

/** Waits until the partitions, numbered from 0, are spread evenly over the settled members, each owned by one. */
export function untilShared(partitions, ...members) {
  return until(`${members.length} members share ${partitions} partitions`, () => {
    const owned = members.flatMap((member) => member.owned).sort((a, b) => a - b);
    const even = members.every(({ owned, settled }) => settled && owned.length === partitions / members.length);
    return even && owned.length === partitions && owned.every((partition, n) => partition === n);
  });
}

/** Waits until the members have received as many records as there are messages, and fails unless it is each one once. */
export async function untilReceived(messages, ...members) {
  const received = () => members.flatMap((member) => member.received);
  const sorted = (records) => records.map(({ partition, value }) => `${partition} ${value}`).sort();
  await until(`${messages.length} records arrive`, () => received().length >= messages.length);
  assert.deepEqual(sorted(received()), sorted(messages));
}
