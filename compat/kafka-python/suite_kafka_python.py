"""kafka-python: producer, consumer with explicit partitions and in groups, admin client, everyday programs."""

import json
import logging
import threading
import warnings
from itertools import islice

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import (
    AlterConfigOp,
    ConfigResource,
    KafkaAdminClient,
    MemberToRemove,
    NewTopic,
    OffsetSpec,
    OffsetTimestamp,
)
from kafka.errors import (
    GroupIdNotFoundError,
    GroupSubscribedToTopicError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidTopicError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NoError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from kafka.partitioner import Partitioner

from groups import group_tests
from suite import (
    BOOTSTRAP,
    START_MS,
    STEP_MS,
    Record,
    by_partition,
    crash_under_load,
    equal,
    fresh_name,
    large_record,
    mixed_records,
    plain_records,
    run,
    test,
    within,
)

SECONDS = 30
LOG_APPEND_TIME = 1
# Errors reach the tests by the API; the log would repeat them.
logging.disable(logging.CRITICAL)
# Functions as serializers are what programs have, though this client now prefers classes.
warnings.simplefilter("ignore", DeprecationWarning)
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def error_of(call):
    """The class of the error that the call raises."""
    try:
        call()
    except Exception as error:
        return type(error)
    raise AssertionError("no error was raised")


def described(topic):
    return admin.describe_topics([topic])[0]


def wait_for_partitions(topic, count):
    for _ in within(SECONDS, f"{topic} has {count} partitions with leaders"):
        if [p["leader_id"] >= 0 for p in described(topic)["partitions"]] == [True] * count:
            return


def create(partitions, configs={}):
    """A new topic, once its metadata is there."""
    name = fresh_name()
    admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}})
    wait_for_partitions(name, partitions)
    return name


def producer(**config):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=20, max_request_size=4_000_000, **config)


def offer(to, topic, record):
    """Sends without waiting; the acknowledgement to come."""
    partition, key, value, headers, timestamp = record
    return to.send(topic, value, key, headers, partition, timestamp)


def send(to, topic, records):
    """Sends and waits for every acknowledgement; the offsets in the order of the records. Raises the first error."""
    acknowledgements = [offer(to, topic, record) for record in records]
    to.flush(SECONDS)
    return [acknowledgement.get(SECONDS).offset for acknowledgement in acknowledgements]


def send_all(topic, records, **config):
    """`send` by a producer of its own."""
    to = producer(**config)
    try:
        return send(to, topic, records)
    finally:
        to.close(SECONDS)


def consumer(**config):
    return KafkaConsumer(
        **{"bootstrap_servers": BOOTSTRAP, "group_id": None, "auto_offset_reset": "none", "check_crcs": True, **config}
    )


def read(topic, starts, **config):
    """Reads the partitions from their start offsets to their ends, as messages in the order of arrival."""
    reader = consumer(**config)
    try:
        partitions = [TopicPartition(topic, partition) for partition in starts]
        ends = reader.end_offsets(partitions)
        reader.assign(partitions)
        for partition in partitions:
            reader.seek(partition, starts[partition.partition])
        messages = []
        for _ in within(SECONDS, "the end of every partition"):
            for batch in reader.poll(1000).values():
                messages.extend(batch)
            if {partition: reader.position(partition) for partition in partitions} == ends:
                return messages
    finally:
        reader.close()


def as_record(message):
    return Record(message.partition, message.key, message.value, list(message.headers), message.timestamp)


def expect_all(topic, records, **config):
    """Fails unless the topic holds exactly these records, in order and at dense offsets from 0."""
    wanted = by_partition(records)
    messages = read(topic, dict.fromkeys(wanted, 0), **config)
    got = by_partition(map(as_record, messages))
    for partition in wanted:
        equal(len(got.get(partition, [])), len(wanted[partition]), f"the number of records in partition {partition}")
        for offset, (actual, expected) in enumerate(zip(got[partition], wanted[partition])):
            equal(actual, expected, f"the record at {partition}/{offset}")
        offsets = [m.offset for m in messages if m.partition == partition]
        equal(offsets, list(range(len(offsets))), f"the offsets of partition {partition}")


def configs_of(topic, which="all"):
    configs = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter=which)["topic"][topic]
    return {name: config["value"] for name, config in configs.items()}


@test("creates a topic with partitions and configs, lists and describes it")
def _():
    name = create(4, {"max.message.bytes": "200000", "retention.ms": "-1"})
    equal(name in admin.list_topics(), True, "whether the topic is listed")
    partitions = described(name)["partitions"]
    equal(sorted(p["partition_index"] for p in partitions), [0, 1, 2, 3], "the partitions")
    brokers = {node["broker_id"] for node in admin.describe_cluster()["brokers"]}
    equal({p["leader_id"] for p in partitions}, brokers, "the leaders")
    equal(configs_of(name, "modified"), {"max.message.bytes": "200000", "retention.ms": "-1"}, "the modified configs")
    equal(configs_of(name)["segment.bytes"], "1073741824", "a default config")


@test("refuses a topic that exists, an illegal name, an unknown config, a bad value and no partitions")
def _():
    def refused(name, partitions=1, configs={}):
        topic = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        return error_of(lambda: admin.create_topics({name: topic}))

    equal(refused(create(1)), TopicAlreadyExistsError, "the error for a topic that exists")
    equal(refused("no spaces"), InvalidTopicError, "the error for an illegal name")
    equal(refused(fresh_name(), configs={"no.such": "1"}), InvalidConfigurationError, "the error for an unknown config")
    equal(refused(fresh_name(), configs={"retention.ms": "x"}), InvalidConfigurationError, "the error for a bad value")
    equal(refused(fresh_name(), partitions=0), InvalidPartitionsError, "the error for no partitions")


def codec_test(codec):
    @test(f"sends keys, headers, nulls and timestamps with {codec or 'no codec'} and reads them back in order")
    def _():
        name, records = create(3), mixed_records(600, 3)
        send_all(name, records, compression_type=codec)
        expect_all(name, records)


for codec in (None, "gzip", "snappy", "lz4", "zstd"):
    codec_test(codec)


@test("a record of 900 KB comes back, plain and compressed")
def _():
    name = create(1)
    for codec in (None, "zstd"):
        send_all(name, [large_record()], compression_type=codec)
    expect_all(name, [large_record()] * 2)


@test("batches of 10,000 records come back in order, also through small fetches")
def _():
    name, records = create(2), plain_records(20_000, 2)
    send_all(name, records, batch_size=1_000_000)
    expect_all(name, records)
    expect_all(name, records, max_partition_fetch_bytes=50_000, fetch_max_bytes=60_000)


@test("acks 0, 1 and all store records in the order of sending")
def _():
    name, records = create(1), plain_records(300)
    for n, acks in enumerate((0, 1, "all")):
        send_all(name, records[n * 100 : n * 100 + 100], acks=acks, enable_idempotence=False)
    expect_all(name, records)


@test("an idempotent producer writes each record once")
def _():
    name, records = create(3), plain_records(3000, 3)
    offsets = send_all(name, records, enable_idempotence=True, batch_size=500)
    equal(offsets, [n // 3 for n in range(3000)], "the acknowledged offsets")
    expect_all(name, records)


@test("LogAppendTime puts the broker's time into the records")
def _():
    name = create(1, {"message.timestamp.type": "LogAppendTime"})
    send_all(name, plain_records(10))
    messages = read(name, {0: 0})
    equal([message.timestamp_type for message in messages], [LOG_APPEND_TIME] * 10, "the timestamp types")
    equal(min(m.timestamp for m in messages) > START_MS + 3_000_000, True, "whether the broker's clock was used")


@test("seeks by offset and follows what is appended later")
def _():
    name, records = create(1), plain_records(1000)
    send_all(name, records)
    reader, partition = consumer(), TopicPartition(name, 0)
    reader.assign([partition])

    def next_record():
        for _ in within(SECONDS, "a record arrives"):
            for (message,) in reader.poll(1000, max_records=1).values():
                return message.offset, as_record(message)

    for offset in (990, 0, 517, 999):
        reader.seek(partition, offset)
        equal(next_record(), (offset, records[offset]), f"the record after seeking to {offset}")
    send_all(name, records[:1])
    equal(next_record(), (1000, records[0]), "the record appended while the reader waited")
    reader.seek_to_beginning(partition)
    equal(next_record(), (0, records[0]), "the record at the beginning")
    reader.close()


@test("finds offsets by timestamp, earliest, latest and the largest timestamp")
def _():
    name, records = create(1), mixed_records(500, 1)
    send_all(name, records, compression_type="lz4")
    reader, partition = consumer(), TopicPartition(name, 0)

    def at(timestamp):
        found = reader.offsets_for_times({partition: timestamp})[partition]
        return found and (found.offset, found.timestamp)

    equal(at(START_MS), (0, START_MS), "the offset at the first timestamp")
    equal(at(START_MS + 123 * STEP_MS), (123, START_MS + 123 * STEP_MS), "the offset at a timestamp")
    equal(at(START_MS + 123 * STEP_MS + 1), (124, START_MS + 124 * STEP_MS), "the offset between two timestamps")
    equal(at(START_MS - 1), (0, START_MS), "the offset before the first timestamp")
    equal(at(START_MS + 500 * STEP_MS), None, "the offset after the last timestamp")
    equal(reader.beginning_offsets([partition]), {partition: 0}, "the beginning")
    equal(reader.end_offsets([partition]), {partition: 500}, "the end")
    reader.close()

    def listed(spec):
        found = admin.list_partition_offsets({partition: spec})[partition]
        return found.offset, found.timestamp

    equal(listed(OffsetSpec.EARLIEST), (0, -1), "the earliest offset")
    equal(listed(OffsetSpec.LATEST), (500, -1), "the latest offset")
    equal(listed(OffsetSpec.MAX_TIMESTAMP), (499, START_MS + 499 * STEP_MS), "the offset of the largest timestamp")
    (message,) = read(name, {0: 499})
    equal(as_record(message), records[499], "the record at the found offset")


@test("an unknown topic is an error for producer, consumer and admin, and is not created")
def _():
    name = fresh_name()
    # This producer waits for the topic's metadata and gives up when its time is over.
    equal(error_of(lambda: send_all(name, plain_records(1), max_block_ms=2000)), KafkaTimeoutError, "the producer's error")
    reader = consumer()
    equal(reader.partitions_for_topic(name) or set(), set(), "the partitions that the consumer sees")
    reader.close()
    latest = error_of(lambda: admin.list_partition_offsets({TopicPartition(name, 0): OffsetSpec.LATEST}))
    equal(latest, UnknownTopicOrPartitionError, "the error of listing offsets")
    equal(described(name)["error_code"], UnknownTopicOrPartitionError.errno, "the error of describe")
    equal(error_of(lambda: admin.delete_topics([name])), UnknownTopicOrPartitionError, "the error of delete")
    equal(name in admin.list_topics(), False, "whether the topic exists now")


@test("an oversized record is refused and its neighbours are stored")
def _():
    name = create(1, {"max.message.bytes": "10000"})
    small = plain_records(2)
    # With idempotence this client gives up for good after such an error, whoever the broker is.
    to = producer(enable_idempotence=False)
    send(to, name, small[:1])
    big = small[0]._replace(value=b"x" * 20_000)
    equal(error_of(lambda: send(to, name, [big])), MessageSizeTooLargeError, "the error")
    send(to, name, small[1:])
    to.close()
    expect_all(name, small)


@test("an offset out of range is an error without a reset policy, else the earliest or the latest record follows")
def _():
    name, records = create(1), plain_records(100)
    send_all(name, records)
    equal(error_of(lambda: read(name, {0: 5000})), OffsetOutOfRangeError, "the error above the end")
    earliest = read(name, {0: 5000}, auto_offset_reset="earliest")
    equal([as_record(m) for m in earliest], records, "what is read after a reset to the earliest offset")
    equal(read(name, {0: 5000}, auto_offset_reset="latest"), [], "what is read after a reset to the latest offset")
    admin.delete_records({TopicPartition(name, 0): 60})
    equal(error_of(lambda: read(name, {0: 59})), OffsetOutOfRangeError, "the error below the start")
    equal(len(read(name, {0: 60})), 40, "the number of records from the log start")


@test("alters topic configs one by one, resets them, and replaces them as a whole")
def _():
    name = create(1, {"retention.ms": "1000000", "max.message.bytes": "50000"})

    def alter(configs, **options):
        answer = admin.alter_configs([ConfigResource("TOPIC", name, configs)], **options)
        return answer["topic"][name]

    def wait_for(wanted):
        for _ in within(SECONDS, f"the modified configs become {wanted}"):
            if configs_of(name, "modified") == wanted:
                return

    alter({"retention.ms": "7200000", "cleanup.policy": (AlterConfigOp.APPEND, "compact")})
    wait_for({"retention.ms": "7200000", "max.message.bytes": "50000", "cleanup.policy": "delete,compact"})
    admin.reset_configs([ConfigResource("TOPIC", name, ["max.message.bytes"])])
    wait_for({"retention.ms": "7200000", "cleanup.policy": "delete,compact"})
    # The older request too: this client adds what is already set.
    alter({"segment.bytes": "2000000"}, incremental=False)
    wait_for({"retention.ms": "7200000", "cleanup.policy": "delete,compact", "segment.bytes": "2000000"})
    bad = alter({"retention.ms": "5000", "segment.bytes": "many"})
    equal("InvalidConfiguration" in str(bad), True, f"whether {bad} names the bad value")
    wait_for({"retention.ms": "7200000", "cleanup.policy": "delete,compact", "segment.bytes": "2000000"})


@test("adds partitions, which take records, and refuses to take them away")
def _():
    name, records = create(1), plain_records(30, 3)
    admin.create_partitions({name: 3})
    wait_for_partitions(name, 3)
    send_all(name, records)
    expect_all(name, records)
    equal(error_of(lambda: admin.create_partitions({name: 2})), InvalidPartitionsError, "the error for fewer partitions")


@test("deletes records up to an offset, and up to the end")
def _():
    name, records = create(1), plain_records(100)
    send_all(name, records)
    partition = TopicPartition(name, 0)

    def delete_before(offset):
        return admin.delete_records({partition: offset})[partition]["low_watermark"]

    equal(delete_before(42), 42, "the low watermark")
    messages = read(name, {0: 42})
    equal([(m.offset, as_record(m)) for m in messages], list(enumerate(records))[42:], "what is left")
    equal(error_of(lambda: delete_before(101)), OffsetOutOfRangeError, "the error above the high watermark")
    equal(delete_before(-1), 100, "the end")
    equal(send_all(name, records[:1]), [100], "the next offset")


@test("deletes a topic, and a new one of that name is empty")
def _():
    name = create(2)
    send_all(name, plain_records(10, 2))
    admin.delete_topics([name])
    for _ in within(SECONDS, "the topic is gone"):
        if name not in admin.list_topics():
            break
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
    wait_for_partitions(name, 1)
    record = plain_records(1)
    equal(send_all(name, record), [0], "the first offset of the new topic")
    expect_all(name, record)


@test("after SIGKILL under load and a restart every acknowledged record is there once, and the producer goes on", True)
def _():
    before, after = mixed_records(300, 3), mixed_records(30, 3)
    survivor, name = create(3, {"retention.ms": "-1"}), create(3)
    send_all(survivor, before, compression_type="zstd")
    to, acknowledgements = producer(enable_idempotence=True, batch_size=2000), []
    records = crash_under_load(lambda record: acknowledgements.append(offer(to, name, record)), 3)
    for acknowledgement in acknowledgements:
        acknowledgement.get(60)
    expect_all(name, records)
    expect_all(survivor, before)
    equal(configs_of(survivor, "modified"), {"retention.ms": "-1"}, "the configs from before the crash")
    send(to, survivor, after)
    to.close()
    expect_all(survivor, before + after)


def member(group, topic, **config):
    """A consumer in a group, by default from the earliest record on and without automatic commits."""
    return KafkaConsumer(
        topic,
        **{
            "bootstrap_servers": BOOTSTRAP,
            "group_id": group,
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            **config,
        },
    )


def take(reader, count):
    """The next messages."""
    messages = []
    for _ in within(SECONDS, f"{count} records arrive"):
        # Long enough for a join: this client loses its way when a poll ends in the middle of one.
        for batch in reader.poll(SECONDS * 1000, max_records=count - len(messages)).values():
            messages += batch
        if len(messages) == count:
            return messages


def wait_for_position(reader, partition, offset):
    for _ in within(SECONDS, f"the reader is at {offset}"):
        reader.poll(2000)
        if reader.assignment() and reader.position(partition) == offset:
            return


def committed(group, partition):
    return admin.list_group_offsets({group: [partition]})[group][partition].offset


@test("a second consumer of a group goes on where the first committed, and sees the commit's metadata")
def _():
    name, group, records = create(1), fresh_name(), plain_records(30)
    send_all(name, records)
    partition, stored = TopicPartition(name, 0), threading.Event()
    with member(group, name) as first:
        equal([as_record(m) for m in take(first, 20)], records[:20], "what the first consumer gets")
        first.commit({partition: OffsetAndMetadata(12, "half way", -1)})
    with member(group, name) as second:
        equal(second.committed(partition, metadata=True), OffsetAndMetadata(12, "half way", -1), "the commit")
        equal([(m.offset, as_record(m)) for m in take(second, 8)], list(enumerate(records))[12:20], "what follows")
        second.commit_async().add_callback(lambda _: stored.set())
        equal(stored.wait(SECONDS), True, "whether the second commit is stored")
    with member(group, name) as third:
        equal([(m.offset, as_record(m)) for m in take(third, 10)], list(enumerate(records))[20:], "the rest")


@test("automatic commits come at their interval, and when a consumer is closed")
def _():
    name, group, records = create(1), fresh_name(), plain_records(30)
    send_all(name, records)
    partition = TopicPartition(name, 0)
    with member(group, name, enable_auto_commit=True, auto_commit_interval_ms=50) as reader:
        take(reader, 10)
        # It commits while it polls; paused, it gets nothing meanwhile.
        reader.pause(partition)
        for _ in within(SECONDS, "10 is committed"):
            reader.poll(20)
            if committed(group, partition) == 10:
                break
    with member(group, name, enable_auto_commit=True, auto_commit_interval_ms=3_600_000) as reader:
        equal([m.offset for m in take(reader, 5)], [10, 11, 12, 13, 14], "what follows")
        equal(committed(group, partition), 10, "the committed offset within the interval")
    equal(committed(group, partition), 15, "the committed offset after closing")


@test("a new group starts at the earliest record, at the next to come, or with an error, as its policy says")
def _():
    name, records = create(1), plain_records(30)
    send_all(name, records)
    with member(fresh_name(), name) as reader:
        equal([as_record(m) for m in take(reader, 30)], records, "what a group gets from the earliest offset on")
    with member(fresh_name(), name, auto_offset_reset="latest") as reader:
        wait_for_position(reader, TopicPartition(name, 0), 30)
        send_all(name, records[:1])
        equal([m.offset for m in take(reader, 1)], [30], "what a group gets from the latest offset on")
    with member(fresh_name(), name, auto_offset_reset="none") as reader:
        equal(error_of(lambda: take(reader, 1)), NoOffsetForPartitionError, "the error without a policy")


@test("a committed offset out of range is reset to the earliest or latest offset, or is an error, as the policy says")
def _():
    name, group, records = create(1), fresh_name(), plain_records(30)
    send_all(name, records)
    partition = TopicPartition(name, 0)
    altered = admin.alter_group_offsets(group, {partition: OffsetAndMetadata(5000, "", -1)})
    equal(altered, {partition: NoError}, "the answer to the commit")
    with member(group, name, auto_offset_reset="none") as reader:
        equal(error_of(lambda: take(reader, 1)), OffsetOutOfRangeError, "the error without a policy")
    with member(group, name, auto_offset_reset="latest") as reader:
        wait_for_position(reader, partition, 30)
    with member(group, name) as reader:
        equal([as_record(m) for m in take(reader, 30)], records, "what follows a reset to the earliest offset")


@test("lists and describes a live group and its lag, and protects it from being changed")
def _():
    name, group, client = create(2), fresh_name(), fresh_name()
    send_all(name, plain_records(60, 2))
    partitions = [TopicPartition(name, 0), TopicPartition(name, 1)]
    with member(group, name, client_id=client) as reader:
        take(reader, 60)
        reader.commit({partitions[0]: OffsetAndMetadata(12, "", -1)})

        offsets, ends = admin.list_group_offsets(group)[group], reader.end_offsets(partitions)
        equal({p: ends[p] - offsets[p].offset for p in offsets}, {partitions[0]: 18}, "the lag of what is committed")
        equal(reader.committed(partitions[1]), None, "the offset of a partition without a commit")
        equal([reader.highwater(p) - reader.position(p) for p in partitions], [0, 0], "the lag of the positions")

        (listed,) = [g for g in admin.list_groups(states_filter=["Stable"]) if g["group_id"] == group]
        shown = (listed["group_state"], listed["group_type"], listed["protocol_type"])
        equal(shown, ("Stable", "classic", "consumer"), "the listed state and types")
        others = admin.list_groups(states_filter=["Empty"]) + admin.list_groups(types_filter=["share"])
        equal(group in [g["group_id"] for g in others], False, "whether other filters list it")

        description = admin.describe_groups([group])[group]
        equal((description["group_state"], description["protocol_data"]), ("Stable", "range"), "state and assignor")
        (only,) = description["members"]
        equal((only["client_id"], only["client_host"]), (client, "/127.0.0.1"), "the member's client")
        equal(only["member_id"], reader.group_metadata().member_id, "the member's id")
        (owned,) = only["member_assignment"]["assigned_partitions"]
        equal((owned["topic"], sorted(owned["partitions"])), (name, [0, 1]), "the member's partitions")

        equal(admin.delete_groups([group]), {group: "NonEmptyGroupError"}, "the answer to deleting the group")
        altered = admin.alter_group_offsets(group, {partitions[0]: OffsetAndMetadata(0, "", -1)})
        equal(altered, {partitions[0]: UnknownMemberIdError}, "the answer to altering an offset")
        deleted = admin.delete_group_offsets(group, partitions[:1])
        equal(deleted, {partitions[0]: GroupSubscribedToTopicError}, "the answer to deleting an offset")
        equal(reader.committed(partitions[0]), 12, "the committed offset after all this")


@test("alters, resets and deletes the offsets of an empty group, then the group")
def _():
    name, group = create(1), fresh_name()
    send_all(name, plain_records(30))
    partition = TopicPartition(name, 0)

    def state():
        return admin.describe_groups([group])[group]["group_state"]

    def next_offset():
        with member(group, name) as reader:
            (message,) = take(reader, 1)
            return message.offset

    equal(next_offset(), 0, "the first offset of a new group")
    equal(state(), "Empty", "the state after the member has left")
    admin.alter_group_offsets(group, {partition: OffsetAndMetadata(7, "by hand", -1)})
    equal(admin.list_group_offsets(group)[group], {partition: OffsetAndMetadata(7, "by hand", -1)}, "the altered offset")
    equal(next_offset(), 7, "the first offset after altering it")
    for target, offset in ((OffsetSpec.LATEST, 30), (OffsetTimestamp(START_MS + 21), 21), (5, 5)):
        reset = admin.reset_group_offsets(group, {partition: target})
        equal(reset, {partition: {"error": NoError, "offset": offset}}, f"the reset to {target}")
        equal(committed(group, partition), offset, f"the offset after the reset to {target}")
    equal(admin.delete_group_offsets(group, [partition]), {partition: NoError}, "the answer to deleting an offset")
    equal(committed(group, partition), -1, "the deleted offset")
    equal(next_offset(), 0, "the first offset after deleting it")
    equal(admin.delete_groups([group]), {group: "OK"}, "the answer to deleting the group")
    equal(group in [g["group_id"] for g in admin.list_groups()], False, "whether the group is still listed")
    equal(state(), "Dead", "the state of a group that is not there")
    equal(admin.delete_groups([group]), {group: "GroupIdNotFoundError"}, "the answer to deleting it again")
    unknown = error_of(lambda: admin.delete_group_offsets(group, [partition]))
    equal(unknown, GroupIdNotFoundError, "the error for offsets of a group that is not there")


@test("a static member stays in its group when it closes, until an admin removes it")
def _():
    name, group = create(1), fresh_name()
    send_all(name, plain_records(1))
    with member(group, name, group_instance_id="one") as reader:
        take(reader, 1)
    description = admin.describe_groups([group])[group]
    shown = (description["group_state"], [m["group_instance_id"] for m in description["members"]])
    equal(shown, ("Stable", ["one"]), "the state and members after closing")
    admin.remove_group_members(group, [MemberToRemove(group_instance_id="one")])
    description = admin.describe_groups([group])[group]
    equal((description["group_state"], description["members"]), ("Empty", []), "the state and members after removal")


# The calls of ordinary programs, with serializers of one line and the broker in a list.
BROKERS = [BOOTSTRAP]


def page_views(count):
    return [(f"user-{n % 10}", {"page": f"/{n}", "n": n}) for n in range(count)]


def view_pages(topic, views):
    """A program that sends JSON by keys and waits for none of it."""
    sender = KafkaProducer(
        bootstrap_servers=BROKERS,
        key_serializer=lambda key: key.encode(),
        value_serializer=lambda value: json.dumps(value).encode(),
        acks="all",
        retries=3,
        retry_backoff_ms=100,
        linger_ms=5,
        batch_size=16384,
        compression_type="gzip",
    )
    for key, value in views:
        sender.send(topic=topic, key=key, value=value)
    sender.flush()
    sender.close()


def viewer(topic, group, **config):
    return KafkaConsumer(
        topic,
        bootstrap_servers=BROKERS,
        group_id=group,
        key_deserializer=lambda key: key.decode(),
        value_deserializer=lambda value: json.loads(value.decode()),
        auto_offset_reset="earliest",
        **config,
    )


def create_pages():
    name = fresh_name()
    admin.create_topics([NewTopic(name=name, num_partitions=3, replication_factor=1)])
    wait_for_partitions(name, 3)
    return name


@test("keyed JSON with acks, retries, linger and gzip reaches each group whole and in the order of each key")
def _():
    name, views = create_pages(), page_views(100)
    view_pages(name, views)
    for group in (fresh_name(), fresh_name(), None):
        consumer = viewer(name, group, enable_auto_commit=group is not None, auto_commit_interval_ms=5000)
        messages = list(islice(consumer, len(views)))
        consumer.close()
        homes = {(message.key, message.partition) for message in messages}
        equal(len(homes), 10, "the number of pairs of a key and a partition")
        for user in range(10):
            got = [m.value for m in messages if m.key == f"user-{user}"]
            equal(got, [value for _, value in views[user::10]], f"the page views of user {user}")


@test("an iterating consumer that commits after each record repeats only the one it had failed on")
def _():
    name, group, views = create_pages(), fresh_name(), page_views(50)
    view_pages(name, views)
    seen = []
    with viewer(name, group, enable_auto_commit=False) as reader:
        for message in reader:
            seen.append(message.value["n"])
            if len(seen) == 20:
                break
            reader.commit()
    with viewer(name, group, enable_auto_commit=False) as reader:
        again = [message.value["n"] for message in islice(reader, 31)]
    equal(seen[-1] in again, True, "whether the record without a commit comes again")
    equal(sorted(seen[:-1] + again), list(range(50)), "what both have got, but for that record")


@test("a consumer in a group seeks to the beginning, to an offset and to the end")
def _():
    name, group = create(1), fresh_name()
    send_all(name, plain_records(30))
    partition = TopicPartition(name, 0)
    with member(group, name) as reader:
        equal([m.offset for m in take(reader, 10)], list(range(10)), "what comes first")
        reader.commit()
        reader.seek_to_beginning()
        equal([m.offset for m in take(reader, 30)], list(range(30)), "what comes from the beginning")
        reader.seek(partition, 25)
        equal([message.offset for message in islice(reader, 5)], [25, 26, 27, 28, 29], "what comes from 25")
        reader.seek(partition, 3)
        reader.seek_to_end()
        equal(reader.position(partition), 30, "the position at the end")
        equal(reader.committed(partition), 10, "the committed offset, which no seek moves")


class ByOrder(Partitioner):
    """Puts all events of an order, whose keys begin with its number, into one partition."""

    def partition(self, topic, key, serialized_key, value, serialized_value, cluster):
        return int(key.split("-")[0]) % len(cluster.partitions_for_topic(topic))


@test("a partitioner of one's own says where a record goes")
def _():
    name = create_pages()
    events = [f"{order}-{event}" for event in ("created", "paid", "shipped") for order in range(7)]
    sender = KafkaProducer(bootstrap_servers=BROKERS, key_serializer=str.encode, partitioner=ByOrder())
    sent = [sender.send(name, key=event, value=b"").get(SECONDS) for event in events]
    sender.close()
    equal([place.partition for place in sent], [int(event[0]) % 3 for event in events], "the acknowledged partitions")
    for partition in range(3):
        got = [message.key.decode() for message in read(name, {partition: 0})]
        equal(got, [event for event in events if int(event[0]) % 3 == partition], f"the events in partition {partition}")


group_tests(create, send_all, cooperative=True)


run("kafka-python")
