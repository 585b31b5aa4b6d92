"""aiokafka: producer, consumer with explicit partitions and in groups, admin client, all in asyncio."""

import asyncio
import logging
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp

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


@asynccontextmanager
async def administrator():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def raise_first(response, field):
    """Raises the error of the first topic or resource that has one; answers carry them as codes."""
    for one in response.to_object()[field]:
        if one["error_code"]:
            raise for_code(one["error_code"])


async def error_of(awaitable):
    """The class of the error that this raises."""
    try:
        await awaitable
    except Exception as error:
        return type(error)
    raise AssertionError("no error was raised")


async def wait_for_partitions(admin, topic, count):
    for _ in within(SECONDS, f"{topic} has {count} partitions with leaders"):
        (described,) = await admin.describe_topics([topic])
        if [p["leader"] >= 0 for p in described["partitions"]] == [True] * count:
            return


async def create(partitions, configs={}, name=None):
    """A new topic, once its metadata is there."""
    name = name or fresh_name()
    async with administrator() as admin:
        raise_first(await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)]), "topic_errors")
        await wait_for_partitions(admin, name, partitions)
    return name


def producer(**config):
    return AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=20, max_request_size=4_000_000, **config)


async def offer(to, topic, record):
    """Sends without waiting for the answer; the acknowledgement to come."""
    partition, key, value, headers, timestamp = record
    return await to.send(topic, value, key, partition, timestamp, headers)


async def send(to, topic, records):
    """Sends and waits for every acknowledgement; the offsets in the order of the records. Raises the first error."""
    acknowledgements = [await offer(to, topic, record) for record in records]
    return [answer.offset for answer in await asyncio.wait_for(asyncio.gather(*acknowledgements), SECONDS)]


async def send_all(topic, records, **config):
    """`send` by a producer of its own."""
    async with producer(**config) as to:
        return await send(to, topic, records)


def consumer(**config):
    return AIOKafkaConsumer(**{"bootstrap_servers": BOOTSTRAP, "auto_offset_reset": "none", **config})


async def read(topic, starts, **config):
    """Reads the partitions from their start offsets to their ends, as messages in the order of arrival."""
    async with consumer(**config) as reader:
        partitions = [TopicPartition(topic, partition) for partition in starts]
        ends = await reader.end_offsets(partitions)
        reader.assign(partitions)
        for partition in partitions:
            reader.seek(partition, starts[partition.partition])
        messages = []
        for _ in within(SECONDS, "the end of every partition"):
            for batch in (await reader.getmany(timeout_ms=1000)).values():
                messages += batch
            if {partition: await reader.position(partition) for partition in partitions} == ends:
                return messages


def as_record(message):
    return Record(message.partition, message.key, message.value, list(message.headers), message.timestamp)


async def expect_all(topic, records, **config):
    """Fails unless the topic holds exactly these records, in order and at dense offsets from 0."""
    wanted = by_partition(records)
    messages = await read(topic, dict.fromkeys(wanted, 0), **config)
    got = by_partition(map(as_record, messages))
    for partition in wanted:
        equal(len(got.get(partition, [])), len(wanted[partition]), f"the number of records in partition {partition}")
        for offset, (actual, expected) in enumerate(zip(got[partition], wanted[partition])):
            equal(actual, expected, f"the record at {partition}/{offset}")
        offsets = [m.offset for m in messages if m.partition == partition]
        equal(offsets, list(range(len(offsets))), f"the offsets of partition {partition}")


async def configs_of(admin, topic):
    (response,) = await admin.describe_configs([ConfigResource("topic", topic)])
    raise_first(response, "resources")
    (resource,) = response.to_object()["resources"]
    return {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}


@test("creates a topic with partitions and configs, lists and describes it")
async def _():
    name = await create(4, {"max.message.bytes": "200000", "retention.ms": "-1"})
    async with administrator() as admin:
        equal(name in await admin.list_topics(), True, "whether the topic is listed")
        (described,) = await admin.describe_topics([name])
        equal(sorted(p["partition"] for p in described["partitions"]), [0, 1, 2, 3], "the partitions")
        brokers = {broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]}
        equal({p["leader"] for p in described["partitions"]}, brokers, "the leaders")
        configs = await configs_of(admin, name)
    shown = [configs[key] for key in ("max.message.bytes", "retention.ms", "segment.bytes")]
    equal(shown, ["200000", "-1", "1073741824"], "two set configs and a default one")


@test("refuses a topic that exists, an illegal name, an unknown config, a bad value and no partitions")
async def _():
    exists = await create(1)
    equal(await error_of(create(1, name=exists)), TopicAlreadyExistsError, "the error for a topic that exists")
    equal(await error_of(create(1, name="no spaces")), InvalidTopicError, "the error for an illegal name")
    equal(await error_of(create(1, {"no.such": "1"})), InvalidConfigurationError, "the error for an unknown config")
    equal(await error_of(create(1, {"retention.ms": "x"})), InvalidConfigurationError, "the error for a bad value")
    equal(await error_of(create(0)), InvalidPartitionsError, "the error for no partitions")


def codec_test(codec):
    @test(f"sends keys, headers, nulls and timestamps with {codec or 'no codec'} and reads them back in order")
    async def _():
        name, records = await create(3), mixed_records(600, 3)
        await send_all(name, records, compression_type=codec)
        await expect_all(name, records)


for codec in (None, "gzip", "snappy", "lz4", "zstd"):
    codec_test(codec)


@test("a record of 900 KB comes back, plain and compressed")
async def _():
    name = await create(1)
    for codec in (None, "zstd"):
        await send_all(name, [large_record()], compression_type=codec, max_batch_size=1_000_000)
    await expect_all(name, [large_record()] * 2)


@test("batches of 10,000 records come back in order, also through small fetches")
async def _():
    name, records = await create(2), plain_records(20_000, 2)
    await send_all(name, records, max_batch_size=1_000_000)
    await expect_all(name, records)
    await expect_all(name, records, max_partition_fetch_bytes=50_000, fetch_max_bytes=60_000)


@test("acks 0, 1 and all store records in the order of sending")
async def _():
    name, records = await create(1), plain_records(300)
    async with producer(acks=0) as to:
        # Nothing is answered: closing the producer sends what it holds.
        for record in records[:100]:
            await offer(to, name, record)
    for _ in within(SECONDS, "the records without acknowledgement are stored"):
        if len(await read(name, {0: 0})) == 100:
            break
    await send_all(name, records[100:200], acks=1)
    await send_all(name, records[200:], acks="all")
    await expect_all(name, records)


@test("an idempotent producer writes each record once")
async def _():
    name, records = await create(3), plain_records(3000, 3)
    offsets = await send_all(name, records, enable_idempotence=True, max_batch_size=500)
    equal(offsets, [n // 3 for n in range(3000)], "the acknowledged offsets")
    await expect_all(name, records)


@test("LogAppendTime puts the broker's time into the records")
async def _():
    name = await create(1, {"message.timestamp.type": "LogAppendTime"})
    await send_all(name, plain_records(10))
    messages = await read(name, {0: 0})
    equal([message.timestamp_type for message in messages], [LOG_APPEND_TIME] * 10, "the timestamp types")
    equal(min(m.timestamp for m in messages) > START_MS + 3_000_000, True, "whether the broker's clock was used")


class ByOrder:
    """Puts all events of an order, whose keys begin with its number, into one partition."""

    def __call__(self, key, all_partitions, available_partitions):
        return int(key.decode().split("-")[0]) % len(all_partitions)


@test("a partitioner of one's own says where a record goes, and the default one keeps a key in its place")
async def _():
    name = await create(3)
    events = [f"{order}-{event}" for event in ("created", "paid", "shipped") for order in range(7)]
    for partitioner, home in ((ByOrder(), lambda event: int(event[0]) % 3), (None, None)):
        config = {"partitioner": partitioner} if partitioner else {}
        async with producer(key_serializer=str.encode, **config) as to:
            sent = [await to.send_and_wait(name, b"", event) for event in events]
            again = [await to.send_and_wait(name, b"", event) for event in events]
        places = [place.partition for place in sent]
        equal([place.partition for place in again], places, "the partitions of the same keys")
        if home:
            equal(places, [home(event) for event in events], "the partitions of one's own choice")


@test("seeks by offset and follows what is appended later")
async def _():
    name, records = await create(1), plain_records(1000)
    await send_all(name, records)
    partition = TopicPartition(name, 0)
    async with consumer() as reader:
        reader.assign([partition])

        async def next_record():
            message = await asyncio.wait_for(reader.getone(), SECONDS)
            return message.offset, as_record(message)

        for offset in (990, 0, 517, 999):
            reader.seek(partition, offset)
            equal(await next_record(), (offset, records[offset]), f"the record after seeking to {offset}")
        await send_all(name, records[:1])
        equal(await next_record(), (1000, records[0]), "the record appended while the reader waited")
        await reader.seek_to_beginning(partition)
        equal(await next_record(), (0, records[0]), "the record at the beginning")
        await reader.seek_to_end(partition)
        equal(await reader.position(partition), 1001, "the position at the end")


@test("finds offsets by timestamp, earliest and latest")
async def _():
    name, records = await create(1), mixed_records(500, 1)
    await send_all(name, records, compression_type="lz4")
    partition = TopicPartition(name, 0)
    async with consumer() as reader:

        async def at(timestamp):
            return (await reader.offsets_for_times({partition: timestamp}))[partition]

        equal(await at(START_MS), OffsetAndTimestamp(0, START_MS), "the offset at the first timestamp")
        later = START_MS + 123 * STEP_MS
        equal(await at(later), OffsetAndTimestamp(123, later), "the offset at a timestamp")
        equal(await at(later + 1), OffsetAndTimestamp(124, later + STEP_MS), "the offset between two timestamps")
        equal(await at(START_MS + 500 * STEP_MS), None, "the offset after the last timestamp")
        equal(await reader.beginning_offsets([partition]), {partition: 0}, "the beginning")
        equal(await reader.end_offsets([partition]), {partition: 500}, "the end")


@test("an unknown topic is an error for producer, consumer and admin, and is not created")
async def _():
    name = fresh_name()
    # Producer and consumer wait for the topic's metadata and give up when their time is over.
    async with producer(request_timeout_ms=2000) as to:
        equal(await error_of(send(to, name, plain_records(1))), UnknownTopicOrPartitionError, "the producer's error")
    nobody = AIOKafkaConsumer(name, bootstrap_servers=BOOTSTRAP, request_timeout_ms=2000)
    equal(await error_of(nobody.start()), UnknownTopicOrPartitionError, "the consumer's error")
    await nobody.stop()
    async with administrator() as admin:
        (described,) = await admin.describe_topics([name])
        equal(for_code(described["error_code"]), UnknownTopicOrPartitionError, "the error of describe")
        deleted = (await admin.delete_topics([name])).to_object()["topic_error_codes"]
        equal([for_code(one["error_code"]) for one in deleted], [UnknownTopicOrPartitionError], "the error of delete")
        equal(name in await admin.list_topics(), False, "whether the topic exists now")


@test("an oversized record is refused and its neighbours are stored")
async def _():
    name = await create(1, {"max.message.bytes": "10000"})
    small = plain_records(2)
    async with producer(max_batch_size=100_000) as to:
        await send(to, name, small[:1])
        big = small[0]._replace(value=b"x" * 20_000)
        equal(await error_of(send(to, name, [big])), MessageSizeTooLargeError, "the error")
        await send(to, name, small[1:])
    await expect_all(name, small)


@test("an offset out of range is an error without a reset policy, else the earliest or the latest record follows")
async def _():
    name, records = await create(1), plain_records(100)
    await send_all(name, records)
    equal(await error_of(read(name, {0: 5000})), OffsetOutOfRangeError, "the error above the end")
    earliest = await read(name, {0: 5000}, auto_offset_reset="earliest")
    equal([as_record(m) for m in earliest], records, "what is read after a reset to the earliest offset")
    equal(await read(name, {0: 5000}, auto_offset_reset="latest"), [], "what is read after a reset to the latest offset")
    async with administrator() as admin:
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(60)})
    equal(await error_of(read(name, {0: 59})), OffsetOutOfRangeError, "the error below the start")
    messages = await read(name, {0: 60})
    equal([(m.offset, as_record(m)) for m in messages], list(enumerate(records))[60:], "what is left")


@test("replaces topic configs as a whole, adds partitions and deletes the topic")
async def _():
    name = await create(1, {"retention.ms": "1000000", "max.message.bytes": "50000"})
    async with administrator() as admin:
        (altered,) = await admin.alter_configs([ConfigResource("topic", name, {"retention.ms": "7200000"})])
        raise_first(altered, "resources")
        for _ in within(SECONDS, "the configs are replaced"):
            configs = await configs_of(admin, name)
            if (configs["retention.ms"], configs["max.message.bytes"]) == ("7200000", "1048588"):
                break
        (refused,) = await admin.alter_configs([ConfigResource("topic", name, {"segment.bytes": "many"})])
        codes = [for_code(one["error_code"]) for one in refused.to_object()["resources"]]
        equal(codes, [InvalidConfigurationError], "the error for a bad value")
        await admin.create_partitions({name: NewPartitions(3)})
        await wait_for_partitions(admin, name, 3)
        fewer = await error_of(admin.create_partitions({name: NewPartitions(2)}))
        equal(fewer, InvalidPartitionsError, "the error for fewer partitions")
        await send_all(name, plain_records(30, 3))
        await expect_all(name, plain_records(30, 3))
        raise_first(await admin.delete_topics([name]), "topic_error_codes")
        for _ in within(SECONDS, "the topic is gone"):
            if name not in await admin.list_topics():
                break


@test("after SIGKILL under load and a restart every acknowledged record is there once, and the producer goes on", True)
async def _():
    before, after = mixed_records(300, 3), mixed_records(30, 3)
    survivor, name = await create(3, {"retention.ms": "-1"}), await create(3)
    await send_all(survivor, before, compression_type="zstd")
    loop, acknowledgements = asyncio.get_running_loop(), []
    # One batch of a partition has to hold all that is offered while the broker is away.
    async with producer(enable_idempotence=True, max_batch_size=4_000_000) as to:

        def offer_one(record):
            sending = asyncio.run_coroutine_threadsafe(offer(to, name, record), loop)
            acknowledgements.append(sending.result(SECONDS))

        records = await asyncio.to_thread(crash_under_load, offer_one, 3)
        await asyncio.wait_for(asyncio.gather(*acknowledgements), 60)
        await expect_all(name, records)
        await expect_all(survivor, before)
        async with administrator() as admin:
            equal((await configs_of(admin, survivor))["retention.ms"], "-1", "a config from before the crash")
        await send(to, survivor, after)
    await expect_all(survivor, before + after)


def member(group, topic, **config):
    """A consumer in a group, by default from the earliest record on and without automatic commits."""
    return AIOKafkaConsumer(
        topic,
        **{
            "bootstrap_servers": BOOTSTRAP,
            "group_id": group,
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            **config,
        },
    )


async def take(reader, count):
    """The next messages."""
    return [await asyncio.wait_for(reader.getone(), SECONDS) for _ in range(count)]


async def committed(group):
    """The offset and metadata of each partition of a group that has a commit."""
    async with administrator() as admin:
        offsets = await admin.list_consumer_group_offsets(group)
        return {partition.partition: tuple(commit) for partition, commit in offsets.items()}


@test("a second consumer of a group goes on where the first committed, and sees the commit's metadata")
async def _():
    name, group, records = await create(1), fresh_name(), plain_records(30)
    await send_all(name, records)
    partition = TopicPartition(name, 0)
    async with member(group, name) as first:
        equal([as_record(m) for m in await take(first, 20)], records[:20], "what the first consumer gets")
        await first.commit({partition: (12, "half way")})
    equal(await committed(group), {0: (12, "half way")}, "the commit")
    async with member(group, name) as second:
        equal(await second.committed(partition), 12, "the committed offset")
        messages = await take(second, 8)
        equal([(m.offset, as_record(m)) for m in messages], list(enumerate(records))[12:20], "what follows")
        await second.commit()
    async with member(group, name) as third:
        equal([(m.offset, as_record(m)) for m in await take(third, 10)], list(enumerate(records))[20:], "the rest")
        equal(await third.seek_to_committed(), {partition: 20}, "where seeking to the commit leads")
        equal([m.offset for m in await take(third, 1)], [20], "what comes after seeking to the commit")


@test("automatic commits come at their interval, and when a consumer is closed")
async def _():
    name, group = await create(1), fresh_name()
    await send_all(name, plain_records(30))
    async with member(group, name, enable_auto_commit=True, auto_commit_interval_ms=50) as reader:
        await take(reader, 10)
        for _ in within(SECONDS, "10 is committed"):
            if await committed(group) == {0: (10, "")}:
                break
    async with member(group, name, enable_auto_commit=True, auto_commit_interval_ms=3_600_000) as reader:
        equal([m.offset for m in await take(reader, 5)], [10, 11, 12, 13, 14], "what follows")
        equal(await committed(group), {0: (10, "")}, "the committed offset within the interval")
    equal(await committed(group), {0: (15, "")}, "the committed offset after closing")


@test("a new group starts at the earliest record, at the next to come, or with an error, as its policy says")
async def _():
    name, records = await create(1), plain_records(30)
    await send_all(name, records)
    async with member(fresh_name(), name) as reader:
        equal([as_record(m) for m in await take(reader, 30)], records, "what a group gets from the earliest offset on")
    async with member(fresh_name(), name, auto_offset_reset="latest") as reader:
        equal(await reader.position(TopicPartition(name, 0)), 30, "where a group starts from the latest offset on")
        await send_all(name, records[:1])
        equal([m.offset for m in await take(reader, 1)], [30], "what it gets then")
    async with member(fresh_name(), name, auto_offset_reset="none") as reader:
        equal(await error_of(take(reader, 1)), NoOffsetForPartitionError, "the error without a policy")


@test("a committed offset out of range is reset to the earliest or latest offset, or is an error, as the policy says")
async def _():
    name, group, records = await create(1), fresh_name(), plain_records(30)
    await send_all(name, records)
    partition = TopicPartition(name, 0)
    async with member(group, name) as reader:
        await reader.commit({partition: 5000})
    async with member(group, name, auto_offset_reset="none") as reader:
        equal(await error_of(take(reader, 1)), OffsetOutOfRangeError, "the error without a policy")
    async with member(group, name, auto_offset_reset="latest") as reader:
        for _ in within(SECONDS, "the reader is at the end"):
            equal(await reader.getmany(timeout_ms=100), {}, "what comes before the end")
            if await reader.position(partition) == 30:
                break
    async with member(group, name) as reader:
        equal([as_record(m) for m in await take(reader, 30)], records, "what follows a reset to the earliest offset")


@test("lists and describes a group and its lag, with a member and when it has left")
async def _():
    name, group, client = await create(2), fresh_name(), fresh_name()
    await send_all(name, plain_records(60, 2))
    partitions = [TopicPartition(name, 0), TopicPartition(name, 1)]
    async with administrator() as admin:

        async def describe():
            (response,) = await admin.describe_consumer_groups([group])
            (description,) = response.to_object()["groups"]
            return description

        equal((await describe())["state"], "Dead", "the state of a group that is not there")
        async with member(group, name, client_id=client) as reader:
            await take(reader, 60)
            await reader.commit({partitions[0]: 12})

            offsets = await admin.list_consumer_group_offsets(group)
            equal(offsets, {partitions[0]: OffsetAndMetadata(12, "")}, "the committed offsets")
            equal(await reader.end_offsets(partitions), {p: 30 for p in partitions}, "the ends")
            equal(await reader.committed(partitions[1]), None, "the offset of a partition without a commit")
            lag = [reader.highwater(p) - await reader.position(p) for p in partitions]
            equal(lag, [0, 0], "the lag of the positions")

            equal((group, "consumer") in await admin.list_consumer_groups(), True, "whether the group is listed")
            description = await describe()
            shown = (description["state"], description["protocol_type"], description["protocol"])
            equal(shown, ("Stable", "consumer", "roundrobin"), "state, type and assignor")
            (only,) = description["members"]
            equal((only["client_id"], only["client_host"]), (client, "/127.0.0.1"), "the member's client")
            assignment = ConsumerProtocolMemberAssignment.decode(only["member_assignment"])
            equal(set(assignment.partitions()), set(partitions), "the member's partitions")
        description = await describe()
        equal((description["state"], description["members"]), ("Empty", []), "state and members after it has left")
        equal((group, "consumer") in await admin.list_consumer_groups(), True, "whether the empty group is listed")


group_tests(
    lambda partitions: asyncio.run(create(partitions)),
    lambda topic, records: asyncio.run(send_all(topic, records)),
    # This client's assignors are all eager.
    cooperative=False,
)


run("aiokafka")
