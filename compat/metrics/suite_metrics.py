"""What a broker tells Prometheus, compared with what was done to it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from suite import BOOTSTRAP, BROKER, equal, fresh_name, run, test, within

SECONDS = 30
CLIENT = {"bootstrap.servers": BOOTSTRAP, "log_level": 2}
LOG = Path(os.environ["BROKER_DIR"], "log")
PID = Path(os.environ["BROKER_DIR"], "pid")
admin = AdminClient(CLIENT)


def get(path):
    """The text of a page; the address is in the last start line of the log."""
    address = re.findall(r'http="([^"]+)"', LOG.read_text())[-1]
    with urllib.request.urlopen(f"http://{address}{path}", timeout=SECONDS) as response:
        return response.read().decode()


def parse(text):
    """Samples by name and labels: only of described families, each once."""
    samples = {}
    for family in text_string_to_metric_families(text):
        if family.type not in ("counter", "gauge", "histogram") or not family.documentation:
            raise AssertionError(f"{family.name} is a {family.type} that says {family.documentation!r}")
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            if key in samples:
                raise AssertionError(f"{sample.name}{sample.labels} is there twice")
            samples[key] = sample.value
    return samples


def scrape():
    return parse(get("/metrics"))


def value(samples, name, **labels):
    """A sample; 0 for an error that has not happened yet."""
    return samples.get((name, frozenset(labels.items())), 0)


def rise(before, name, **labels):
    """By how much a sample has risen since."""
    return value(scrape(), name, **labels) - value(before, name, **labels)


def offsets(samples, topic, partition):
    """Log start, high watermark and log end of a partition."""
    labels = {"topic": topic, "partition": str(partition)}
    names = ["log_start_offset", "high_watermark", "log_end_offset"]
    return [value(samples, f"ottla_partition_{name}", **labels) for name in names]


def create(partitions):
    name = fresh_name()
    (future,) = admin.create_topics([NewTopic(name, partitions, 1)]).values()
    future.result(SECONDS)
    for _ in within(SECONDS, "the new topic is listed"):
        if admin.list_topics(name, timeout=SECONDS).topics[name].error is None:
            return name


def produce_one_by_one(topic, values, partition=0):
    """Each value in a request of its own."""
    producer = Producer({**CLIENT, "linger.ms": 0})
    for number in values:
        producer.produce(topic, b"value %d" % number, partition=partition)
        equal(producer.flush(SECONDS), 0, "undelivered records")


def refusal(futures):
    """The name of the error that an admin call for one resource ends with."""
    (future,) = futures.values()
    try:
        future.result(SECONDS)
    except KafkaException as error:
        return error.args[0].name()
    raise AssertionError("no error was raised")


@test("answers what Prometheus' parser reads: described families, each sample once")
def _():
    create(3)
    samples = scrape()
    names = {name for name, _ in samples}
    for expected in ["ottla_requests_total", "ottla_request_seconds_bucket", "process_resident_memory_bytes"]:
        if expected not in names:
            raise AssertionError(f"{expected} is missing")
    equal(value(samples, "ottla_partitions") >= 3, True, "three partitions or more")


@test("answers /healthz and /readyz")
def _():
    equal((get("/healthz"), get("/readyz")), ("alive\n", "ready\n"), "the two pages")


@test("counts what is produced: requests, answers, records, bytes, and the offsets of each partition")
def _():
    topic = create(2)
    before = scrape()
    produce_one_by_one(topic, range(7), partition=0)
    produce_one_by_one(topic, range(3), partition=1)
    equal(rise(before, "ottla_requests_total", api="Produce"), 10, "produce requests")
    equal(rise(before, "ottla_request_seconds_count", api="Produce"), 10, "answered produce requests")
    equal(rise(before, "ottla_log_appended_records_total"), 10, "records")
    stored = rise(before, "ottla_log_appended_bytes_total")
    received = rise(before, "ottla_request_bytes_total", api="Produce")
    equal(10 * 61 < stored < received, True, f"{stored} bytes stored of {received} received")
    samples = scrape()
    equal([offsets(samples, topic, 0), offsets(samples, topic, 1)], [[0, 7, 7], [0, 3, 3]], "the offsets")
    sizes = [value(samples, "ottla_partition_bytes", topic=topic, partition=p) for p in ("0", "1")]
    equal(sum(sizes), stored, "bytes of both partitions")


@test("counts what is fetched, and shows the offsets that a consumer sees")
def _():
    topic = create(1)
    produce_one_by_one(topic, range(5))
    before = scrape()
    consumer = Consumer({**CLIENT, "group.id": "metrics", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    for number in range(5):
        equal(consumer.poll(SECONDS).value(), b"value %d" % number, "the record")
    seen = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)
    consumer.close()
    equal(list(seen), offsets(scrape(), topic, 0)[:2], "low and high watermark")
    equal(rise(before, "ottla_requests_total", api="Fetch") >= 1, True, "fetch requests")
    stored = value(scrape(), "ottla_partition_bytes", topic=topic, partition="0")
    equal(rise(before, "ottla_response_bytes_total", api="Fetch") > stored, True, "bytes of fetch answers")


@test("counts an error under its API and its name, and a success under none")
def _():
    topic = create(1)
    before = scrape()
    equal(refusal(admin.create_topics([NewTopic(topic, 1, 1)])), "TOPIC_ALREADY_EXISTS", "creating twice")
    equal(refusal(admin.delete_topics(["absent"])), "UNKNOWN_TOPIC_OR_PART", "deleting what is not there")
    create(1)
    errors = "ottla_request_errors_total"
    equal(rise(before, errors, api="CreateTopics", error="TOPIC_ALREADY_EXISTS"), 1, "the first error")
    equal(rise(before, errors, api="DeleteTopics", error="UNKNOWN_TOPIC_OR_PARTITION"), 1, "the second error")
    equal(rise(before, "ottla_requests_total", api="CreateTopics"), 2, "requests, refused or not")
    after = scrape()
    if any(dict(labels).get("error") == "NONE" for name, labels in after if name == errors):
        raise AssertionError("NONE is counted as an error")


@test("has histograms whose buckets add up")
def _():
    samples = scrape()
    histograms = {}
    for (name, labels), count in samples.items():
        if name.endswith("_bucket"):
            labels = dict(labels)
            end = float(labels.pop("le"))
            key = (name.removesuffix("_bucket"), frozenset(labels.items()))
            histograms.setdefault(key, []).append((end, count))
    equal(len(histograms) > 10, True, "one for each API and one for syncs")
    for (name, labels), buckets in histograms.items():
        ends, counts = zip(*sorted(buckets))
        equal(list(counts), sorted(counts), f"the order of the buckets of {name}")
        equal((ends[0], ends[-2], ends[-1]), (1e-5, 60.0, float("inf")), f"the ends of {name}")
        equal(samples[name + "_count", labels], counts[-1], f"the count of {name}")
        # Each took at most the end of its bucket, and more than the end of the one before.
        each = [after - before for before, after in zip((0, *counts), counts)]
        least = sum(count * begin for count, begin in zip(each, (0, *ends)))
        equal(samples[name + "_sum", labels] >= least, True, f"the sum of {name}")


@test("shows connections while they are open, and why they were closed")
def _():
    host, port = BOOTSTRAP.rsplit(":", 1)
    before = scrape()
    sockets = [socket.create_connection((host, int(port)), SECONDS) for _ in range(5)]
    for _ in within(SECONDS, "five more connections are open"):
        if rise(before, "ottla_connections", protocol="kafka") == 5:
            break
    for one in sockets[:3]:
        one.close()
    for one in sockets[3:]:
        one.sendall(b"GET / HTTP/1.1\r\n\r\n")
    closed = {"peer": 3, "malformed": 2}
    for _ in within(SECONDS, "they are closed for these reasons"):
        reasons = {r: rise(before, "ottla_connections_closed_total", protocol="kafka", reason=r) for r in closed}
        if reasons == closed:
            break
    equal(rise(before, "ottla_connections", protocol="kafka"), 0, "connections that are still open")


@test("counts syncs, and nothing waits for one when all is acknowledged")
def _():
    topic = create(1)
    before = scrape()
    produce_one_by_one(topic, range(4))
    equal(rise(before, "ottla_log_sync_seconds_count") >= 4, True, "a sync for each acknowledged record")
    equal(value(scrape(), "ottla_log_unsynced_bytes"), 0, "unsynced bytes")
    equal(value(scrape(), "ottla_log_failed_syncs_total"), 0, "failed syncs")


@test("tells of the process what the system tells")
def _():
    proc = Path("/proc", PID.read_text().strip())
    samples = scrape()
    resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    told = value(samples, "process_resident_memory_bytes")
    equal(0.5 < told / resident < 2, True, f"{told} bytes told, {resident} resident")
    descriptors = len(list((proc / "fd").iterdir()))
    equal(abs(value(samples, "process_open_fds") - descriptors) < 20, True, f"{descriptors} descriptors")
    started = value(samples, "process_start_time_seconds")
    equal(time.time() - 600 < started < time.time() + 2, True, f"a start at {started}")
    equal(value(samples, "process_cpu_seconds_total") > 0, True, "CPU time")


@test("begins its counters anew after a kill, and shows the same offsets", needs_crash=True)
def _():
    topic = create(1)
    produce_one_by_one(topic, range(6))
    before = offsets(scrape(), topic, 0)
    subprocess.run([BROKER, "restart"], check=True, stdout=sys.stderr)
    samples = scrape()
    equal(offsets(samples, topic, 0), before, "the offsets")
    equal(value(samples, "ottla_requests_total", api="Produce"), 0, "produce requests")
    produce_one_by_one(topic, range(2))
    equal(offsets(scrape(), topic, 0), [0, 8, 8], "the offsets with two more")


if shutil.which("promtool"):

    @test("passes promtool's checks")
    def _():
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=get("/metrics"), capture_output=True, text=True, check=False
        )
        equal((checked.returncode, checked.stdout + checked.stderr), (0, ""), "what promtool says")


run("metrics")
