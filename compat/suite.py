"""What the Python suites share: the table of tests, the records they send, and a broker that can be crashed."""

import os
import random
import subprocess
import sys
import time
import uuid
from typing import NamedTuple

BOOTSTRAP = os.environ["BOOTSTRAP"]
# The command that kills and restarts the broker; None for a broker that is not ours.
BROKER = os.environ.get("BROKER")
# An hour ago, in ms: recent enough for every retention, and unlike any time that a broker would put in itself.
START_MS = int(time.time() * 1000) - 3_600_000
STEP_MS = 1000

TESTS = []


class Record(NamedTuple):
    """A record as it is sent and as it must come back; the timestamp is in ms."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list
    timestamp: int


def test(sentence, needs_crash=False):
    """Enters a function under the sentence that it proves. It fails by raising."""

    def enter(function):
        if BROKER or not needs_crash:
            TESTS.append((sentence, function))
        return function

    return enter


def run(client):
    """Runs every test, prints a line for each, and exits 1 if one failed."""
    failed = False
    for sentence, function in TESTS:
        try:
            function()
        except Exception as error:
            failed = True
            why = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            line = error.__traceback__.tb_next.tb_lineno
            print(f"FAIL {client} {sentence}: {why} (line {line})", flush=True)
        else:
            print(f"PASS {client} {sentence}", flush=True)
    sys.exit(failed)


def equal(got, wanted, what):
    """Fails with both values, shortened, unless they are equal."""
    if got != wanted:
        raise AssertionError(f"{what} is {repr(got)[:150]} instead of {repr(wanted)[:150]}")


def within(seconds, what):
    """Yields until the time is up, then fails: `for _ in within(10, "the topic is listed"): …; break`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
    raise AssertionError(f"not within {seconds} s: {what}")


def fresh_name():
    """A topic name that no other run has used."""
    return f"compat.{uuid.uuid4().hex[:12]}"


def mixed_records(count, partitions):
    """Records with and without key, value and headers, one step of time apart, spread evenly over the partitions.

    None lacks both key and value: kafka-python does not send such.
    """
    return [
        Record(
            partition=n % partitions,
            key=None if n % 7 == 0 else b"key-%d" % (n % 10),
            value=None if n % 7 == 3 else b"value %d " % n * (n % 20 + 1),
            headers=[] if n % 3 == 0 else [("n", b"%d" % n), ("empty", b""), ("Größe", b"\x00\xff"), ("n", b"again")],
            timestamp=START_MS + n * STEP_MS,
        )
        for n in range(count)
    ]


def plain_record(n, partitions=1):
    """A small numbered record with nothing but a value."""
    return Record(n % partitions, None, b"record %d" % n, [], START_MS + n)


def plain_records(count, partitions=1):
    return [plain_record(n, partitions) for n in range(count)]


def large_record():
    """One record of 900 KB that no codec can shrink."""
    return Record(0, b"large", random.Random(900).randbytes(900 * 1024), [], START_MS)


def by_partition(records):
    """The records of each partition, in order."""
    partitions = {}
    for record in records:
        partitions.setdefault(record.partition, []).append(record)
    return partitions


def crash_under_load(offer, partitions):
    """Offers records all the time while the broker is killed, some more while it is away, then restarts it.

    Returns all the records that were offered.
    """
    offered = []

    def offer_next():
        offered.append(plain_record(len(offered), partitions))
        offer(offered[-1])

    while len(offered) < 5000:
        offer_next()
    killing = subprocess.Popen([BROKER, "kill"], stdout=sys.stderr)
    while killing.poll() is None:
        offer_next()
    equal(killing.returncode, 0, "the exit status of the kill")
    for _ in range(5000):
        offer_next()
    subprocess.run([BROKER, "restart"], check=True, stdout=sys.stderr)
    return offered
