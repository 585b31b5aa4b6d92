"""confluent-kafka (librdkafka): producer, consumer with explicit partitions and in groups, admin client."""

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    AcknowledgeType,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    Producer,
    ShareConsumer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from groups import group_tests
from suite import (
    BOOTSTRAP,
    START_MS,
    STEP_MS,
    Record,
    broker,
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
# Errors reach the tests by the API; the log would repeat them.
CLIENT = {"bootstrap.servers": BOOTSTRAP, "log_level": 2, "topic.metadata.propagation.max.ms": 1000}
admin = AdminClient(CLIENT)


def result(futures):
    """The only result of an admin call for one resource; raises the broker's error."""
    (future,) = futures.values()
    return future.result(SECONDS)


def error_of(call):
    """The code of the Kafka error that the call raises."""
    try:
        call()
    except KafkaException as error:
        return error.args[0].code()
    raise AssertionError("no error was raised")


def create(partitions, config={}):
    """A new topic, once its metadata is there."""
    name = fresh_name()
    result(admin.create_topics([NewTopic(name, partitions, 1, config=config)]))
    for _ in within(SECONDS, "the new topic has leaders"):
        topic = admin.list_topics(name, timeout=SECONDS).topics[name]
        if topic.error is None and all(p.leader >= 0 for p in topic.partitions.values()):
            return name


def producer(config={}):
    return Producer({**CLIENT, "linger.ms": 20, **config})


def offer(to, topic, record, on_delivery):
    partition, key, value, headers, timestamp = record
    to.produce(
        topic, value, key, partition=partition, headers=headers, timestamp=timestamp, on_delivery=on_delivery
    )


def send(to, topic, records):
    """Sends and waits for every acknowledgement; the offsets in the order of the records. Raises the first error."""
    outcomes = [None] * len(records)
    for n, record in enumerate(records):

        def delivered(error, message, n=n):
            outcomes[n] = KafkaException(error) if error else message.offset()

        offer(to, topic, record, delivered)
        to.poll(0)
    equal(to.flush(SECONDS), 0, "the number of records without an answer")
    for outcome in outcomes:
        if isinstance(outcome, KafkaException):
            raise outcome
    return outcomes


def consumer(config={}):
    return Consumer({
        **CLIENT,
        "group.id": "not used: partitions are assigned",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        **config,
    })


def read(topic, starts, config={}):
    """Reads the partitions from their start offsets to their ends, as messages in the order of arrival."""
    reader = consumer(config)
    try:
        reader.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
        messages, unfinished = [], set(starts)
        for _ in within(SECONDS, "the end of every partition"):
            message = reader.poll(1)
            if message is None:
                continue
            if message.error() is None:
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                unfinished.discard(message.partition())
                if not unfinished:
                    return messages
            else:
                raise KafkaException(message.error())
    finally:
        reader.close()


def as_record(message):
    return Record(message.partition(), message.key(), message.value(), message.headers() or [], message.timestamp()[1])


def expect_all(topic, records, config={}):
    """Fails unless the topic holds exactly these records, in order and at dense offsets from 0."""
    wanted = by_partition(records)
    messages = read(topic, dict.fromkeys(wanted, OFFSET_BEGINNING), config)
    got = by_partition(map(as_record, messages))
    for partition in wanted:
        equal(len(got.get(partition, [])), len(wanted[partition]), f"the number of records in partition {partition}")
        for offset, (actual, expected) in enumerate(zip(got[partition], wanted[partition])):
            equal(actual, expected, f"the record at {partition}/{offset}")
        offsets = [m.offset() for m in messages if m.partition() == partition]
        equal(offsets, list(range(len(offsets))), f"the offsets of partition {partition}")


def configs_of(topic):
    return result(admin.describe_configs([ConfigResource("TOPIC", topic)]))


@test("creates a topic with partitions and configs, lists and describes it")
def _():
    name = create(4, {"max.message.bytes": "200000", "retention.ms": "-1"})
    equal(sorted(admin.list_topics(timeout=SECONDS).topics[name].partitions), [0, 1, 2, 3], "the listed partitions")
    described = result(admin.describe_topics(TopicCollection([name])))
    equal([p.id for p in described.partitions], [0, 1, 2, 3], "the described partitions")
    brokers = {node.id for node in admin.describe_cluster().result(SECONDS).nodes}
    equal({p.leader.id for p in described.partitions}, brokers, "the leaders")
    configs = configs_of(name)
    equal((configs["max.message.bytes"].value, configs["max.message.bytes"].is_default), ("200000", False), "a set config")
    equal((configs["segment.bytes"].value, configs["segment.bytes"].is_default), ("1073741824", True), "a default config")


@test("refuses a topic that exists, an illegal name, an unknown config, a bad value and no partitions")
def _():
    def refused(name, partitions=1, config={}):
        return error_of(lambda: result(admin.create_topics([NewTopic(name, partitions, 1, config=config)])))

    equal(refused(create(1)), KafkaError.TOPIC_ALREADY_EXISTS, "the error for a topic that exists")
    equal(refused("no spaces"), KafkaError.TOPIC_EXCEPTION, "the error for an illegal name")
    equal(refused(fresh_name(), config={"no.such": "1"}), KafkaError.INVALID_CONFIG, "the error for an unknown config")
    equal(refused(fresh_name(), config={"retention.ms": "x"}), KafkaError.INVALID_CONFIG, "the error for a bad value")
    equal(refused(fresh_name(), partitions=0), KafkaError.INVALID_PARTITIONS, "the error for no partitions")


def codec_test(codec):
    @test(f"sends keys, headers, nulls and timestamps with {codec} and reads them back in order")
    def _():
        name, records = create(3), mixed_records(600, 3)
        send(producer({"compression.type": codec}), name, records)
        expect_all(name, records)


for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
    codec_test(codec)


@test("a compressed batch larger than max.message.bytes before compression is taken")
def _():
    name = create(1, {"max.message.bytes": "30000"})
    records = [Record(0, None, b"%4d" % n * 250, [], START_MS) for n in range(200)]
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        send(producer({"compression.type": codec, "linger.ms": 200}), name, records)
    expect_all(name, records * 4)


@test("a record of 900 KB comes back, plain and compressed")
def _():
    name = create(1)
    for codec in ("none", "zstd"):
        send(producer({"compression.type": codec}), name, [large_record()])
    expect_all(name, [large_record()] * 2)


@test("batches of 10,000 records come back in order, also through small fetches")
def _():
    name, records = create(2), plain_records(40_000, 2)
    send(producer({"batch.num.messages": 10_000, "linger.ms": 500}), name, records)
    expect_all(name, records)
    expect_all(name, records, {"fetch.message.max.bytes": 50_000, "fetch.max.bytes": 60_000, "message.max.bytes": 50_000})


@test("acks 0, 1 and all store records in the order of sending")
def _():
    name, records = create(1), plain_records(300)
    for n, acks in enumerate(("0", "1", "all")):
        send(producer({"acks": acks}), name, records[n * 100 : n * 100 + 100])
    expect_all(name, records)


@test("an idempotent producer writes each record once")
def _():
    name, records = create(3), plain_records(3000, 3)
    offsets = send(producer({"enable.idempotence": True, "linger.ms": 0}), name, records)
    equal(offsets, [n // 3 for n in range(3000)], "the acknowledged offsets")
    expect_all(name, records)


@test("LogAppendTime puts the broker's time into the records")
def _():
    name = create(1, {"message.timestamp.type": "LogAppendTime"})
    send(producer(), name, plain_records(10))
    stamps = [message.timestamp() for message in read(name, {0: OFFSET_BEGINNING})]
    equal([kind for kind, _ in stamps], [TIMESTAMP_LOG_APPEND_TIME] * 10, "the timestamp types")
    equal(min(at for _, at in stamps) > START_MS + 3_000_000, True, "whether the broker's clock was used")


@test("seeks by offset and follows what is appended later")
def _():
    name, records = create(1), plain_records(1000)
    send(producer(), name, records)
    reader = consumer({"enable.partition.eof": False})

    def next_record():
        for _ in within(SECONDS, "a record arrives"):
            if message := reader.poll(1):
                equal(message.error(), None, "the error of a message")
                return message.offset(), as_record(message)

    reader.assign([TopicPartition(name, 0, 990)])
    equal(next_record(), (990, records[990]), "the first record from 990")
    for offset in (0, 517, 999):
        reader.seek(TopicPartition(name, 0, offset))
        equal(next_record(), (offset, records[offset]), f"the record after seeking to {offset}")
    send(producer(), name, [records[0]])
    equal(next_record(), (1000, records[0]), "the record appended while the reader waited")
    reader.close()


@test("finds offsets by timestamp, earliest, latest and the largest timestamp")
def _():
    name, records = create(1), mixed_records(500, 1)
    send(producer({"compression.type": "lz4"}), name, records)
    reader = consumer()

    def offset_at(timestamp):
        (found,) = reader.offsets_for_times([TopicPartition(name, 0, timestamp)], timeout=SECONDS)
        return found.offset

    equal(offset_at(START_MS), 0, "the offset at the first timestamp")
    equal(offset_at(START_MS + 123 * STEP_MS), 123, "the offset at a timestamp")
    equal(offset_at(START_MS + 123 * STEP_MS + 1), 124, "the offset between two timestamps")
    equal(offset_at(START_MS - 1), 0, "the offset before the first timestamp")
    equal(offset_at(START_MS + 500 * STEP_MS), OFFSET_END, "the offset after the last timestamp")
    equal(reader.get_watermark_offsets(TopicPartition(name, 0), timeout=SECONDS), (0, 500), "the watermarks")
    reader.close()

    def listed(spec):
        found = result(admin.list_offsets({TopicPartition(name, 0): spec}))
        return found.offset, found.timestamp

    equal(listed(OffsetSpec.earliest()), (0, -1), "the earliest offset")
    equal(listed(OffsetSpec.latest()), (500, -1), "the latest offset")
    equal(listed(OffsetSpec.max_timestamp()), (499, START_MS + 499 * STEP_MS), "the offset of the largest timestamp")
    equal(listed(OffsetSpec.for_timestamp(START_MS + 7 * STEP_MS)), (7, START_MS + 7 * STEP_MS), "a listed timestamp")
    (message,) = read(name, {0: 499})
    equal(as_record(message), records[499], "the record at the found offset")


@test("an unknown topic is an error for producer, consumer and admin, and is not created")
def _():
    name = fresh_name()
    unknown = KafkaError.UNKNOWN_TOPIC_OR_PART
    # The producer may learn it from metadata, before it has sent anything.
    produced = error_of(lambda: send(producer(), name, plain_records(1)))
    equal(produced in (unknown, KafkaError._UNKNOWN_TOPIC), True, f"whether {produced} means an unknown topic")
    reader = consumer()
    equal(reader.list_topics(name, SECONDS).topics[name].error.code(), unknown, "the error in metadata")
    nowhere = error_of(lambda: reader.get_watermark_offsets(TopicPartition(name, 0), timeout=SECONDS))
    equal(nowhere, KafkaError._UNKNOWN_PARTITION, "the consumer's error")
    reader.close()
    equal(error_of(lambda: result(admin.describe_topics(TopicCollection([name])))), unknown, "the error of describe")
    equal(error_of(lambda: result(admin.delete_topics([name]))), unknown, "the error of delete")
    equal(name in admin.list_topics(timeout=SECONDS).topics, False, "whether the topic exists now")


@test("an oversized record is refused and its neighbours are stored")
def _():
    name = create(1, {"max.message.bytes": "10000"})
    small = plain_records(2)
    send(producer(), name, small[:1])
    big = small[0]._replace(value=b"x" * 20_000)
    equal(error_of(lambda: send(producer(), name, [big])), KafkaError.MSG_SIZE_TOO_LARGE, "the error")
    send(producer(), name, small[1:])
    expect_all(name, small)


@test("an offset out of range is an error without a reset policy, else the earliest or the latest record follows")
def _():
    name, records = create(1), plain_records(100)
    send(producer(), name, records)
    equal(error_of(lambda: read(name, {0: 5000})), KafkaError._AUTO_OFFSET_RESET, "the error above the end")
    earliest = read(name, {0: 5000}, {"auto.offset.reset": "earliest"})
    equal([as_record(m) for m in earliest], records, "what is read after a reset to the earliest offset")
    equal(read(name, {0: 5000}, {"auto.offset.reset": "latest"}), [], "what is read after a reset to the latest offset")
    result(admin.delete_records([TopicPartition(name, 0, 60)]))
    equal(error_of(lambda: read(name, {0: 59})), KafkaError._AUTO_OFFSET_RESET, "the error below the start")
    equal(len(read(name, {0: 60})), 40, "the number of records from the log start")


@test("alters topic configs one by one, and all of a resource together or none")
def _():
    name = create(1, {"retention.ms": "1000000", "max.message.bytes": "50000"})

    def alter(*changes):
        entries = [ConfigEntry(key, value, incremental_operation=operation) for key, operation, value in changes]
        result(admin.incremental_alter_configs([ConfigResource("TOPIC", name, incremental_configs=entries)]))

    set_to, delete, append = AlterConfigOpType.SET, AlterConfigOpType.DELETE, AlterConfigOpType.APPEND
    alter(("retention.ms", set_to, "7200000"), ("max.message.bytes", delete, None), ("cleanup.policy", append, "compact"))
    wanted = {"retention.ms": "7200000", "max.message.bytes": "1048588", "cleanup.policy": "delete,compact"}
    for _ in within(SECONDS, f"the configs become {wanted}"):
        configs = configs_of(name)
        if {key: configs[key].value for key in wanted} == wanted:
            break
    bad = error_of(lambda: alter(("retention.ms", set_to, "5000"), ("segment.bytes", set_to, "many")))
    equal(bad, KafkaError.INVALID_CONFIG, "the error for a bad value")
    equal(configs_of(name)["retention.ms"].value, "7200000", "the neighbour of a bad value")


@test("adds partitions, which take records, and refuses to take them away")
def _():
    name = create(1)
    result(admin.create_partitions([NewPartitions(name, 3)]))
    for _ in within(SECONDS, "the topic has 3 partitions"):
        if len(admin.list_topics(name, timeout=SECONDS).topics[name].partitions) == 3:
            break
    records = plain_records(30, 3)
    send(producer(), name, records)
    expect_all(name, records)
    fewer = error_of(lambda: result(admin.create_partitions([NewPartitions(name, 2)])))
    equal(fewer, KafkaError.INVALID_PARTITIONS, "the error for fewer partitions")


@test("deletes records up to an offset, and up to the end")
def _():
    name, records = create(1), plain_records(100)
    send(producer(), name, records)
    partition = TopicPartition(name, 0, 42)
    equal(result(admin.delete_records([partition])).low_watermark, 42, "the low watermark")
    messages = read(name, {0: OFFSET_BEGINNING})
    equal([(m.offset(), as_record(m)) for m in messages], list(enumerate(records))[42:], "what is left")
    beyond = error_of(lambda: result(admin.delete_records([TopicPartition(name, 0, 101)])))
    equal(beyond, KafkaError.OFFSET_OUT_OF_RANGE, "the error above the high watermark")
    equal(result(admin.delete_records([TopicPartition(name, 0, OFFSET_END)])).low_watermark, 100, "the end")
    equal(send(producer(), name, records[:1]), [100], "the next offset")


@test("deletes a topic, and a new one of that name is empty")
def _():
    name = create(2)
    send(producer(), name, plain_records(10, 2))
    result(admin.delete_topics([name]))
    for _ in within(SECONDS, "the topic is gone"):
        if name not in admin.list_topics(timeout=SECONDS).topics:
            break
    result(admin.create_topics([NewTopic(name, 1, 1)]))
    for _ in within(SECONDS, "the topic is back"):
        if name in admin.list_topics(timeout=SECONDS).topics:
            break
    record = plain_records(1)
    equal(send(producer(), name, record), [0], "the first offset of the new topic")
    expect_all(name, record)


@test("after SIGKILL under load and a restart every acknowledged record is there once, and the producer goes on", True)
def _():
    before, after = mixed_records(300, 3), mixed_records(30, 3)
    survivor, name = create(3, {"retention.ms": "-1"}), create(3)
    send(producer({"compression.type": "zstd"}), survivor, before)
    to = producer({
        "enable.idempotence": True,
        "batch.num.messages": 50,
        "linger.ms": 1,
        "queue.buffering.max.messages": 10_000_000,
    })
    errors = []

    def offer_one(record):
        offer(to, name, record, lambda error, _: errors.append(error) if error else None)
        to.poll(0)

    records = crash_under_load(offer_one, 3)
    equal(to.flush(60), 0, "the number of records without an answer")
    equal(errors, [], "the failed deliveries")
    expect_all(name, records)
    expect_all(survivor, before)
    equal(configs_of(survivor)["retention.ms"].value, "-1", "a config from before the crash")
    send(to, survivor, after)
    expect_all(survivor, before + after)


def member(group, topic, config={}):
    """A consumer in a group, by default from the earliest record on and without automatic commits."""
    reader = Consumer({
        **CLIENT,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        **config,
    })
    reader.subscribe([topic])
    return reader


def take(reader, count):
    """The next messages; raises the first error."""
    messages = []
    for _ in within(SECONDS, f"{count} records arrive"):
        for message in reader.consume(count - len(messages), 1):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
        if len(messages) == count:
            return messages


def wait_for_end(reader):
    """Until a reader with enable.partition.eof is at the end without a record."""
    for _ in within(SECONDS, "the reader is at the end"):
        if message := reader.poll(1):
            equal(message.error() and message.error().code(), KafkaError._PARTITION_EOF, "what comes at the end")
            return message.offset()


def committed(group):
    """The offset and metadata of each partition of a group that has a commit."""
    found = result(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    return {p.partition: (p.offset, p.metadata) for p in found.topic_partitions}


def commit(group, *partitions):
    """Commits in the name of a group that has no members."""
    answer = result(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, list(partitions))]))
    for partition in answer.topic_partitions:
        if partition.error:
            raise KafkaException(partition.error)


@test("a second consumer of a group goes on where the first committed, and sees the commit's metadata")
def _():
    name, group, records = create(1), fresh_name(), plain_records(30)
    send(producer(), name, records)
    with member(group, name) as first:
        messages = take(first, 20)
        equal([as_record(m) for m in messages], records[:20], "what the first consumer gets")
        first.commit(message=messages[4], asynchronous=False)
        equal(committed(group)[0][0], 5, "the commit of one message")
        first.commit(offsets=[TopicPartition(name, 0, 12, "half way")], asynchronous=False)
    with member(group, name) as second:
        (found,) = second.committed([TopicPartition(name, 0)], SECONDS)
        equal((found.offset, found.metadata), (12, "half way"), "the commit")
        equal([(m.offset(), as_record(m)) for m in take(second, 8)], list(enumerate(records))[12:20], "what follows")
        second.commit(asynchronous=False)
    with member(group, name) as third:
        equal([(m.offset(), as_record(m)) for m in take(third, 10)], list(enumerate(records))[20:], "the rest")


@test("automatic commits come at their interval, and when a consumer is closed")
def _():
    name, group = create(1), fresh_name()
    send(producer(), name, plain_records(30))
    with member(group, name, {"enable.auto.commit": True, "auto.commit.interval.ms": 50}) as reader:
        take(reader, 10)
        for _ in within(SECONDS, "10 is committed"):
            if committed(group) == {0: (10, None)}:
                break
    with member(group, name, {"enable.auto.commit": True, "auto.commit.interval.ms": 3_600_000}) as reader:
        equal([m.offset() for m in take(reader, 5)], [10, 11, 12, 13, 14], "what follows")
        equal(committed(group), {0: (10, None)}, "the committed offset within the interval")
    equal(committed(group), {0: (15, None)}, "the committed offset after closing")


@test("a new group starts at the earliest record, at the next to come, or with an error, as its policy says")
def _():
    name, records = create(1), plain_records(30)
    send(producer(), name, records)
    with member(fresh_name(), name) as reader:
        equal([as_record(m) for m in take(reader, 30)], records, "what a group gets from the earliest offset on")
    with member(fresh_name(), name, {"auto.offset.reset": "latest", "enable.partition.eof": True}) as reader:
        equal(wait_for_end(reader), 30, "where a group starts from the latest offset on")
        send(producer(), name, records[:1])
        equal([m.offset() for m in take(reader, 1)], [30], "what it gets then")
    with member(fresh_name(), name, {"auto.offset.reset": "error"}) as reader:
        equal(error_of(lambda: take(reader, 1)), KafkaError._AUTO_OFFSET_RESET, "the error without a policy")


@test("a committed offset out of range is reset to the earliest or latest offset, or is an error, as the policy says")
def _():
    name, group, records = create(1), fresh_name(), plain_records(30)
    send(producer(), name, records)
    commit(group, TopicPartition(name, 0, 5000))
    with member(group, name, {"auto.offset.reset": "error"}) as reader:
        equal(error_of(lambda: take(reader, 1)), KafkaError._AUTO_OFFSET_RESET, "the error without a policy")
    with member(group, name, {"auto.offset.reset": "latest", "enable.partition.eof": True}) as reader:
        equal(wait_for_end(reader), 30, "where a reset to the latest offset leads")
    with member(group, name) as reader:
        equal([as_record(m) for m in take(reader, 30)], records, "what follows a reset to the earliest offset")


@test("lists and describes a live group and its lag, and protects it from being changed")
def _():
    name, group, client = create(2), fresh_name(), fresh_name()
    send(producer(), name, plain_records(60, 2))
    with member(group, name, {"client.id": client, "group.instance.id": "one"}) as reader:
        take(reader, 60)
        reader.commit(offsets=[TopicPartition(name, 0, 12)], asynchronous=False)

        ends = {p: reader.get_watermark_offsets(TopicPartition(name, p), SECONDS)[1] for p in (0, 1)}
        offsets = committed(group)
        equal({p: ends[p] - offsets[p][0] for p in offsets}, {0: 18}, "the lag of what is committed")
        positions = reader.position([TopicPartition(name, 0), TopicPartition(name, 1)])
        equal({p.partition: p.offset for p in positions}, ends, "the positions")

        def listed(**filters):
            groups = admin.list_consumer_groups(**filters).result(SECONDS)
            equal(groups.errors, [], "the errors of listing groups")
            return {g.group_id: (g.state, g.type, g.is_simple_consumer_group) for g in groups.valid}

        shown = (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC, False)
        equal(listed(states={ConsumerGroupState.STABLE})[group], shown, "the listed state and type")
        equal(group in listed(states={ConsumerGroupState.EMPTY}), False, "whether it is listed as empty")
        equal(group in listed(types={ConsumerGroupType.CONSUMER}), False, "whether it is listed under another type")

        description = result(admin.describe_consumer_groups([group]))
        shown = (description.state, description.type, description.partition_assignor)
        equal(shown, (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC, "range"), "state, type and assignor")
        brokers = [node.id for node in admin.describe_cluster().result(SECONDS).nodes]
        equal(description.coordinator.id in brokers, True, "whether its coordinator is a broker")
        (only,) = description.members
        shown = (only.member_id, only.client_id, only.host, only.group_instance_id)
        equal(shown, (reader.memberid(), client, "/127.0.0.1", "one"), "the member's ids and host")
        owned = {(p.topic, p.partition) for p in only.assignment.topic_partitions}
        equal(owned, {(name, 0), (name, 1)}, "the member's partitions")

        deleted = error_of(lambda: result(admin.delete_consumer_groups([group])))
        equal(deleted, KafkaError.NON_EMPTY_GROUP, "the error of deleting the group")
        altered = error_of(lambda: commit(group, TopicPartition(name, 0, 0)))
        equal(altered, KafkaError.UNKNOWN_MEMBER_ID, "the error of altering an offset")
        equal(committed(group), {0: (12, None)}, "the committed offset after all this")


@test("alters the offsets of an empty group, then deletes the group")
def _():
    name, group = create(1), fresh_name()
    send(producer(), name, plain_records(30))

    def state():
        return result(admin.describe_consumer_groups([group])).state

    def next_offset():
        with member(group, name) as reader:
            (message,) = take(reader, 1)
            return message.offset()

    equal(next_offset(), 0, "the first offset of a new group")
    equal(state(), ConsumerGroupState.EMPTY, "the state after the member has left")
    commit(group, TopicPartition(name, 0, 7, "by hand"))
    equal(committed(group), {0: (7, "by hand")}, "the altered offset")
    equal(next_offset(), 7, "the first offset after altering it")
    result(admin.delete_consumer_groups([group]))
    equal(committed(group), {}, "the offsets of a deleted group")
    groups = admin.list_consumer_groups().result(SECONDS).valid
    equal(group in [g.group_id for g in groups], False, "whether the group is still listed")
    equal(state(), ConsumerGroupState.DEAD, "the state of a group that is not there")
    again = error_of(lambda: result(admin.delete_consumer_groups([group])))
    equal(again, KafkaError.GROUP_ID_NOT_FOUND, "the error of deleting it again")


group_tests(create, lambda topic, records: send(producer(), topic, records), cooperative=True)


def share_group(partitions=1):
    """A new topic, and a share group of its name that begins with the first record."""
    name = create(partitions)
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.GROUP, name, incremental_configs=[entry])
    result(admin.incremental_alter_configs([resource]))
    return name


def share_member(group, mode, config={}):
    member = ShareConsumer({**CLIENT, "group.id": group, "share.acknowledgement.mode": mode, **config})
    member.subscribe([group])
    return member


def share_take(member, count):
    """Polls until there are that many."""
    messages = []
    for _ in within(SECONDS, f"{count} records of a share group"):
        for message in member.poll(0.2):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
        if len(messages) >= count:
            equal(len(messages), count, "the number of records")
            return messages


def share_commit(member):
    for partition, error in member.commit_sync(SECONDS).items():
        equal(error, None, f"the error of {partition}")


@test("shares a partition among members of a share group that accept by polling on")
def _():
    group = share_group()
    with share_member(group, "implicit") as one, share_member(group, "implicit") as two:
        send(producer(), group, plain_records(300))
        offsets = []
        for _ in within(SECONDS, "all records"):
            for member in one, two:
                offsets += [message.offset() for message in member.poll(0.1)]
            if len(offsets) >= 300:
                break
        equal(sorted(offsets), list(range(300)), "the offsets")
        share_commit(one)
        share_commit(two)
    with share_member(group, "implicit") as later:
        send(producer(), group, plain_records(1))
        equal([message.offset() for message in share_take(later, 1)], [300], "what is left")


@test("accepts, releases and rejects records of a share group one by one")
def _():
    group = share_group()
    send(producer(), group, plain_records(4))
    with share_member(group, "explicit") as member:
        types = [AcknowledgeType.ACCEPT, AcknowledgeType.RELEASE, AcknowledgeType.REJECT, AcknowledgeType.ACCEPT]
        for message, kind in zip(share_take(member, 4), types):
            equal(message.delivery_count(), 1, "the deliveries")
            member.acknowledge(message, kind)
        share_commit(member)
        (again,) = share_take(member, 1)
        equal((again.offset(), again.delivery_count()), (1, 2), "offset and deliveries of the released record")
        member.acknowledge(again)
        share_commit(member)


@test("gives what a member of a share group had to another as soon as it leaves")
def _():
    group = share_group()
    send(producer(), group, plain_records(10))
    leaves = share_member(group, "explicit")
    share_take(leaves, 10)
    leaves.close()
    with share_member(group, "explicit") as stays:
        for message in share_take(stays, 10):
            equal(message.delivery_count(), 2, "the deliveries")
            stays.acknowledge(message)
        share_commit(stays)


@test("goes on after SIGKILL with what a share group has not accepted", needs_crash=True)
def _():
    group = share_group()
    send(producer(), group, plain_records(40))
    # Smaller batches than there are records: each poll takes whole ones.
    send(producer(), group, plain_records(40))
    with share_member(group, "explicit", {"max.poll.records": 10}) as member:
        done = set()
        while not done:
            messages = member.poll(0.2)
            for message in messages:
                member.acknowledge(message)
            share_commit(member)
            done.update(message.offset() for message in messages)
        broker("restart")
        before = set(done)
        send(producer(), group, plain_records(20))
        for _ in within(SECONDS, "the rest"):
            for message in member.poll(0.2):
                equal(message.offset() in before, False, f"whether {message.offset()} was accepted before the kill")
                member.acknowledge(message)
                done.add(message.offset())
            if len(done) == 100:
                break


run("confluent-kafka")
