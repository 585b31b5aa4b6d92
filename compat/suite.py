"""What the Python suites share: the table of tests, the records they send, and a broker that can be crashed."""

import asyncio
import inspect
import os
import random
import subprocess
import sys
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

BOOTSTRAP = os.environ["BOOTSTRAP"]
# The command that kills and restarts the broker; None for a broker that is not ours.
BROKER = os.environ.get("BROKER")
# An hour ago, in ms: recent enough for every retention, and unlike any time that a broker would put in itself.
START_MS = int(time.time() * 1000) - 3_600_000
STEP_MS = 1000

TESTS = []


class Test(NamedTuple):
    sentence: str
    function: object
    # Kills the broker, so that no other test may run.
    needs_crash: bool
    # Mostly waits, so that it runs beside the others.
    waits: bool


class Record(NamedTuple):
    """A record as it is sent and as it must come back; the timestamp is in ms."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list
    timestamp: int


def test(sentence, needs_crash=False, waits=False):
    """Enters a function, or a coroutine function, under the sentence that it proves. It fails by raising."""

    def enter(function):
        if BROKER or not needs_crash:
            TESTS.append(Test(sentence, function, needs_crash, waits))
        return function

    return enter


def run(client):
    """Runs every test, those that crash the broker last, prints a line for each, and exits 1 if one failed."""
    failed = False

    def tell(line):
        # One write, for lines of tests that run beside each other.
        print(line + "\n", end="", flush=True)

    def check(entry):
        nonlocal failed
        try:
            if inspect.iscoroutinefunction(entry.function):
                asyncio.run(entry.function())
            else:
                entry.function()
        except Exception as error:
            failed = True
            why = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            tell(f"FAIL {client} {entry.sentence}: {why} ({place(error)})")
        else:
            tell(f"PASS {client} {entry.sentence}")

    with ThreadPoolExecutor() as beside:
        waiting = beside.map(check, [entry for entry in TESTS if entry.waits])
        for entry in TESTS:
            if not (entry.waits or entry.needs_crash):
                check(entry)
        list(waiting)
    for entry in TESTS:
        if entry.needs_crash:
            check(entry)
    sys.exit(failed)


def place(error):
    """File and line of the test that an error came through."""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if Path(__file__).parent in path.parents and path != Path(__file__):
            return f"{path.name}:{frame.lineno}"


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


def broker(command):
    """Ends the broker by SIGKILL ("kill"), or starts it again ("restart")."""
    subprocess.run([BROKER, command], check=True, stdout=sys.stderr)


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
    broker("restart")
    return offered
