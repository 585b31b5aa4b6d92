"""What every client's consumer groups must do, and members of groups that are processes, so that one can be killed.

A suite calls `group_tests`. Beside it stands `member.py`, a consumer in the client's own words, which takes its
`options()`, tells what happens to it by `report`, and leaves the group as soon as `when_asked_to_leave` calls it.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from suite import broker, equal, fresh_name, plain_record, test

PARTITIONS = 6
# The shortest that a broker takes, for members that are to be missed.
SHORT_SESSION_MS = 6000
HEARTBEAT_MS = 500
# For everything that is waited for.
SECONDS = 60
# What happens in time does not happen because such a session has ended.
LONG_SESSION_MS = 120_000


class Options(NamedTuple):
    topic: str
    group: str
    # group.instance.id of a static member, or None.
    instance: str | None
    # Whether to use the client's cooperative assignor.
    cooperative: bool
    session_ms: int


def options():
    """What the suite wants of this member."""
    return Options(*json.loads(sys.argv[1]))


def report(kind, values):
    """Tells the suite which partitions are "assigned" or "revoked", or which "records" (their values) have come."""
    print(json.dumps([kind, values]), flush=True)


def when_asked_to_leave(act):
    """Calls this in a thread when the suite wants this member to leave, and when there is no suite any more."""
    threading.Thread(target=lambda: (sys.stdin.read(), act()), daemon=True).start()


class Member:
    """A member's process and what it has reported."""

    def __init__(self, changed, options):
        self.instance = options.instance
        self.partitions = set()
        self.assignments = 0
        self.revocations = []
        self.records = []
        self._changed = changed
        program = Path(sys.argv[0]).with_name("member.py")
        self._process = subprocess.Popen(
            [sys.executable, "-B", program, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self):
        for line in self._process.stdout:
            kind, values = json.loads(line)
            with self._changed:
                if kind == "assigned":
                    self.partitions |= set(values)
                    self.assignments += 1
                elif kind == "revoked":
                    self.partitions -= set(values)
                    self.revocations.append(set(values))
                else:
                    self.records += values
                self._changed.notify_all()

    def leave(self):
        """Ends it as a program ends its consumer."""
        self._process.stdin.close()
        equal(self._process.wait(SECONDS), 0, "the exit status of a member")
        self._listener.join()

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._listener.join()


class Group:
    """A topic, the live members that share it, and all the records that any member has got."""

    def __init__(self, create, send):
        self.topic = create(PARTITIONS)
        self.name = fresh_name()
        self.members = []
        self._changed = threading.Condition()
        self._send = send
        self._sent = []
        self._gone = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.kill()

    def join(self, instance=None, cooperative=False, session_ms=LONG_SESSION_MS):
        options = Options(self.topic, self.name, instance, cooperative, session_ms)
        self.members.append(Member(self._changed, options))
        return self.members[-1]

    def end(self, member, how):
        """Ends a member, by Member.leave or Member.kill."""
        how(member)
        self.members.remove(member)
        self._gone.append(member)

    def wait(self, what, happened):
        with self._changed:
            if not self._changed.wait_for(happened, SECONDS):
                owned = [sorted(member.partitions) for member in self.members]
                raise AssertionError(f"not within {SECONDS} s: {what}; now the members own {owned}")

    def wait_until_shared(self):
        """Until each partition has one owner, and no member less than another."""
        share, everything = PARTITIONS // len(self.members), list(range(PARTITIONS))

        def shared():
            owned = [member.partitions for member in self.members]
            return {len(own) for own in owned} == {share} and sorted(p for own in owned for p in own) == everything

        self.wait(f"each member owns {share} partitions", shared)

    def expect_records(self, count=300):
        """Sends records to all partitions; fails unless each record that was ever sent has come to one member, once."""
        records = [plain_record(len(self._sent) + n, PARTITIONS) for n in range(count)]
        self._send(self.topic, records)
        self._sent += [record.value.decode() for record in records]

        def got():
            return sorted(value for member in self.members + self._gone for value in member.records)

        self.wait("all records arrive", lambda: len(got()) >= len(self._sent))
        equal(got(), sorted(self._sent), "all that the members got")


def group_tests(create, send, cooperative):
    """Enters the tests. `create(partitions)` gives a topic's name, `send(topic, records)` returns when all are stored;
    `cooperative` says whether the client has an assignor for incremental rebalances."""

    @test("three members share a topic; the others take over when one leaves, and when one is killed", waits=True)
    def _():
        with Group(create, send) as group:
            _, leaves, dies = group.join(), group.join(), group.join(session_ms=SHORT_SESSION_MS)
            group.wait_until_shared()
            group.expect_records()
            group.end(leaves, Member.leave)
            group.wait_until_shared()
            group.expect_records()
            group.end(dies, Member.kill)
            group.wait_until_shared()
            group.expect_records()

    @test("static members come back after leaving and after a kill, with their partitions and no rebalance", waits=True)
    def _():
        with Group(create, send) as group:
            for instance in ("leads", "follows"):
                group.join(instance)
                group.wait_until_shared()
            group.expect_records()
            for how in (Member.leave, Member.kill):
                for _ in range(2):
                    returns, stays = group.members
                    seen, had = stays.assignments, set(returns.partitions)
                    group.end(returns, how)
                    again = group.join(returns.instance)
                    group.wait(f"{had} are back", lambda: again.partitions == had)
                    group.expect_records()
                    equal(stays.assignments, seen, "how often the other member was assigned partitions")

    if cooperative:

        @test("in a cooperative rebalance the first member gives up only what the second gets", waits=True)
        def _():
            with Group(create, send) as group:
                first = group.join(cooperative=True)
                group.wait_until_shared()
                second = group.join(cooperative=True)
                group.wait_until_shared()
                equal(first.revocations, [second.partitions], "what the first member lost")
                group.expect_records()

    @test("after SIGKILL and a restart a group goes on where it had committed", needs_crash=True)
    def _():
        with Group(create, send) as group:
            member = group.join()
            group.expect_records()
            group.end(member, Member.leave)
            broker("kill")
            broker("restart")
            group.join()
            group.expect_records()

    @test("a live group survives SIGKILL and a restart, and takes in a member that comes meanwhile", needs_crash=True)
    def _():
        with Group(create, send) as group:
            group.join(), group.join()
            group.wait_until_shared()
            group.expect_records()
            broker("kill")
            group.join()
            broker("restart")
            group.wait_until_shared()
            group.expect_records()
