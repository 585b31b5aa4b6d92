"""What the comparisons of this folder share: the systems, the driver, how medians become a table with verdicts."""

import argparse
import contextlib
import datetime
import json
import mmap
import os
import pathlib
import platform
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
KAFKA = ROOT / "bench" / "kafka" / "run"
# Its whole path, so that the time of a start has no search for it.
TASKSET = shutil.which("taskset") or "taskset"
MIB = 1 << 20
# Load average from which on somebody else uses the machine.
BUSY = 1.0


class Failure(Exception):
    """What stops the comparison, in one line."""


class Driver:
    """`ottla bench` on a core of its own."""

    def __init__(self, binary, cpu):
        self.prefix = [TASKSET, "-c", str(cpu), str(binary), "bench"]

    def command(self, what, server, *flags):
        where = ["--url", f"http://{server.sqs}"] if what == "queue" else ["--bootstrap", server.address]
        return [*self.prefix, what, *where, "--json", *flags]

    def measure(self, what, server, *flags):
        """Runs a measurement and gives its report."""
        ran = subprocess.run(self.command(what, server, *flags), capture_output=True, text=True)
        if ran.returncode != 0:
            raise Failure(f"{server.name}, {what} {' '.join(flags)}: {ran.stderr.strip()[-2000:]}\n{server.said()}")
        return json.loads(ran.stdout)

    def start(self, server, *flags):
        """Milliseconds from the start of the server's command to its first answer; the server is stopped again."""
        return self.measure("start", server, *flags, "--", *server.command)["milliseconds"]


class Ottla:
    """Our server over a directory."""

    name = "Ottla"
    key = "ottla"
    warm_up = {"first": 2, "later": 2}

    # What a comparison wants to be otherwise.
    flags = ["--flush", "os"]

    def __init__(self, directory, given):
        self.directory = directory
        self.address = f"127.0.0.1:{free_port()}"
        self.process = None
        where = ["--listen", self.address, "--data", str(directory / "data")]
        self.command = [TASKSET, "-c", str(given.server_cpu), str(given.binary), *where, *self.flags]

    @property
    def pid(self):
        return self.process.pid

    def prepare(self):
        """Nothing need be there before the first start."""

    def start(self):
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen([*self.command, "--ready-file", str(ready)], stdout=log, stderr=log)
        wait_for("Ottla is ready", lambda: ready.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise Failure((self.directory / "log").read_text().strip()[-2000:])

    def said(self):
        """The end of its log."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def end(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None


class Observed(Ottla):
    """Ottla with its metrics."""

    def __init__(self, directory, given):
        super().__init__(directory, given)
        self.http = f"127.0.0.1:{free_port()}"
        self.command += ["--http-listen", self.http]

    def counted(self, *series):
        """What these series have counted since the start."""
        with urllib.request.urlopen(f"http://{self.http}/metrics") as answer:
            text = answer.read().decode()
        found = [re.search(rf"^{re.escape(one)} (\S+)$", text, re.M) for one in series]
        if None in found:
            raise Failure(f"the metrics lack one of {series}")
        return [float(one[1]) for one in found]


class Other:
    """A server that serves once it listens. `words` are its command."""

    def __init__(self, directory, given, address, words):
        self.directory = directory
        self.address = address
        self.process = None
        self.command = [TASKSET, "-c", str(given.server_cpu), *words]

    @property
    def pid(self):
        return self.process.pid

    def prepare(self):
        """There is nothing to prepare."""

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait_for(f"{self.name} listens", lambda: is_listening(self.address) or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise Failure(f"{self.name} does not start: {self.said().strip()}")

    def said(self):
        """The end of what it has said."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def end(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None


class Kafka:
    """A stock Apache Kafka over a directory."""

    name = "Kafka"
    key = "kafka"
    # What it would wait for a group's first members, which ours does not either.
    properties = ["group.initial.rebalance.delay.ms=0"]
    warm_up = {"first": 20, "later": 5}

    def __init__(self, directory, given):
        self.directory = directory
        self.cpu = given.server_cpu
        self.pid = None
        # Port 0 takes a free one at the first start, which is then kept.
        self.address = "127.0.0.1:0"

    def prepare(self):
        """Formats the directory, and learns the command that starts Kafka over it on a port of its own."""
        self.start()
        words = pathlib.Path(f"/proc/{self.pid}/cmdline").read_text().split("\0")[:-1]
        self.command = [TASKSET, "-c", str(self.cpu), *words]
        self.end()

    def start(self):
        port = self.address.rpartition(":")[2]
        ran = subprocess.run(
            [KAFKA, "start", self.directory, port, str(self.cpu), *self.properties], stdout=subprocess.PIPE, text=True, check=False
        )
        if ran.returncode != 0:
            raise Failure("Apache Kafka does not start")
        self.pid = int(ran.stdout)
        self.address = (self.directory / "ready").read_text().strip()

    def said(self):
        """The end of its log."""
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def end(self, how=signal.SIGTERM):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)
            wait_for("Apache Kafka has ended", lambda: not is_running(self.pid))
            self.pid = None


@contextlib.contextmanager
def fresh(system, work, given):
    """A system over an empty directory, which is gone afterwards, as is the server."""
    directory = pathlib.Path(tempfile.mkdtemp(dir=work))
    server = system(directory, given)
    try:
        server.prepare()
        yield server
    finally:
        server.end(signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def memory_mib(pid, field="VmRSS"):
    """Resident memory: `VmRSS` now, `VmHWM` at its most."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MIB
    raise Failure(f"no memory of process {pid}")


def wait_for(what, is_so, seconds=60, every=0.001):
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise Failure(f"not so after {seconds} s: {what}")
        time.sleep(every)


def free_port():
    """A port below the ephemeral range on which nothing listens."""
    while True:
        port = random.randrange(10000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_listening(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
        return True
    except OSError:
        return False


def machine():
    cpus = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30), 1),
        "kernel": platform.release(),
        "architecture": platform.machine(),
    }


def medians(runs, name, metrics):
    return {
        metric: statistics.median(values)
        for metric in metrics
        if (values := [run["found"][metric] for run in runs if run["system"] == name and metric in run["found"]])
    }


class Bar:
    """What a metric of Ottla's has to keep: `than` names the system whose figure it is compared with, or nobody."""

    def __init__(self, sign, limit, than=None):
        self.sign, self.limit, self.than = sign, limit, than

    def __str__(self):
        return f"{self.sign} {self.limit:g}" + (f" x {self.than}" if self.than else "")

    def is_kept(self, figures):
        """None where a figure is missing."""
        mine, reference = figures.get("Ottla"), figures.get(self.than) if self.than else 1
        if mine is None or not reference:
            return None
        ratio = mine / reference
        return {"<=": ratio <= self.limit, "<": ratio < self.limit, ">=": ratio >= self.limit, ">": ratio > self.limit}[self.sign]


def judge(metrics, found):
    """The rows of the table. `found` has the medians of each system; `metrics` are (name, what, unit, digits, bars)."""
    rows = []
    for metric, what, unit, digits, bars in metrics:
        figures = {system: medians[metric] for system, medians in found.items() if metric in medians}
        mine = figures.get("Ottla")
        ratios = {
            system: mine / figure for system, figure in figures.items() if system != "Ottla" and mine is not None and figure
        }
        verdicts = [{"bar": str(bar), "kept": bar.is_kept(figures)} for bar in bars]
        rows.append(
            {"metric": metric, "what": what, "unit": unit, "digits": digits, "figures": figures, "ratios": ratios, "bars": verdicts}
        )
    return rows


def table(rows, systems):
    """`systems` are the columns, Ottla's last; each of the others has one more for the ratio to it."""

    def number(value, digits):
        return "-" if value is None else f"{value:,.{digits}f}"

    others = [system for system in systems if system != "Ottla"]
    heads = "".join(f"{system:>14}" for system in [*others, "Ottla"])
    lines = [f"{'':<52}{heads}  {'unit':<5}" + "".join(f"{'/ ' + system:>16}" for system in others)]
    for row in rows:
        figures = "".join(f"{number(row['figures'].get(system), row['digits']):>14}" for system in [*others, "Ottla"])
        ratios = "".join(f"{number(row['ratios'].get(system), 3):>16}" for system in others)
        verdict = {None: "?", True: "pass", False: "FAIL"}
        bars = ", ".join(f"{bar['bar']}: {verdict[bar['kept']]}" for bar in row["bars"])
        lines.append(f"{row['what']:<52}{figures}  {row['unit']:<5}{ratios}  {bars}".rstrip())
    return "\n".join(lines)


def arguments(description, systems, add=lambda parser: None):
    """The flags of a script; `add` adds those that are its own."""
    parser = argparse.ArgumentParser(description=description, epilog="Writes bench/results/…TIME.json; exit 1 if a bar fails.")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs, of which the median counts [%(default)s]")
    parser.add_argument("--only", choices=systems, help="run one of them; bars by comparison are left out")
    parser.add_argument("--binary", type=pathlib.Path, help="measure this one [built from the sources]")
    parser.add_argument("--server-cpu", type=int, default=0, help="core of the server [%(default)s]")
    parser.add_argument("--driver-cpu", type=int, default=1, help="core of the driver [%(default)s]")
    parser.add_argument("--dir", help="where the servers keep their data: 20 GB of a real disk [the system's]")
    add(parser)
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs: at least 1")
    usable = os.sched_getaffinity(0)
    if given.server_cpu == given.driver_cpu or not {given.server_cpu, given.driver_cpu} <= usable:
        parser.error(f"server and driver need two different cores of {sorted(usable)}")
    if given.binary is None:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
        given.binary = ROOT / "target" / "release" / "ottla"
    # Thousands of members and connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    return given


@contextlib.contextmanager
def awake(cpu):
    """Keeps a core from halting while it has nothing to do: how long a halted core of a virtual machine takes to wake is its host's affair."""
    idle = ["chrt", "--idle", "0", TASKSET, "-c", str(cpu), sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(idle) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def memory_at_hand():
    """Has the host give nine tenths of the memory that is free, and keeps it: a virtual machine's host may take free memory back after seconds,
    and what a page that a server writes to then costs is the host's affair. Taken back is what is free in one piece of 2 MiB, so a page is
    held in each of half that size, and the rest is free for the servers."""
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemFree"))
    piece = 1 << 20
    with mmap.mmap(-1, max(piece, free * 9 // 10 // piece * piece), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        for held in range(0, len(memory), piece):
            memory.madvise(mmap.MADV_DONTNEED, held + mmap.PAGESIZE, piece - mmap.PAGESIZE)
        yield


def built_with_go(name):
    """The program in the folder of this name, built."""
    program = ROOT / ".cache" / name / name
    subprocess.run(["go", "build", "-C", str(ROOT / "bench" / name), "-o", str(program), "."], check=True)
    return program


def first_records(server, driver, given, groups, *flags):
    """Milliseconds of each of these new groups until a client that has never spoken to the broker has a record, which was there before."""
    record = ["--connections", "1", "--partitions", "1", "--record-bytes", "100", "--batch-records", "1"]
    driver.measure("produce", server, "--topic", "first", *record, "--warm-up", "0", "--bytes", "1")
    command = [TASKSET, "-c", str(given.driver_cpu), str(given.first_record), *flags, server.address, "first", *groups]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise Failure(f"{server.name}, first record: {ran.stderr.strip()[-2000:]}\n{server.said()}")
    return [float(line) for line in ran.stdout.split()]


def compare(kind, given, systems, metrics, measure):
    """Runs `measure(system, driver, given, work)` on all systems in turn, keeps everything as JSON, prints the table; the exit code."""
    systems = [system for system in systems if given.only in (None, system.key)]
    driver = Driver(given.binary, given.driver_cpu)
    runs = []
    with tempfile.TemporaryDirectory(prefix="ottla-bench-", dir=given.dir) as work:
        for index in range(given.runs):
            for system in systems:
                load = os.getloadavg()[0]
                busy = "; the machine is busy, numbers mean little" if index == 0 and load > BUSY else ""
                print(f"run {index + 1} of {given.runs}: {system.name}{busy}", file=sys.stderr, flush=True)
                found = measure(system, driver, given, work)
                runs.append({"system": system.name, "load_average_before": round(load, 2), "found": found})
    names = [metric for metric, *_ in metrics]
    rows = judge(metrics, {system.name: medians(runs, system.name, names) for system in systems})
    now = datetime.datetime.now(datetime.timezone.utc)
    result = {"at": now.isoformat(timespec="seconds"), "machine": machine(), "medians": rows, "runs": runs}
    path = ROOT / "bench" / "results" / f"{kind}-{now:%Y-%m-%dT%H%M%SZ}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows, [system.name for system in systems]))
    verdicts = [bar["kept"] for row in rows for bar in row["bars"] if bar["kept"] is not None]
    print(f"{verdicts.count(True)} bars kept, {verdicts.count(False)} missed; written to {path.relative_to(ROOT)}")
    return 1 if False in verdicts else 0


def run(main):
    """Runs a script's `main`, and says in one line why it cannot."""
    # So that what was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except (Failure, subprocess.SubprocessError) as failure:
        sys.exit(f"{sys.argv[0]}: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
