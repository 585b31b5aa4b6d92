"""confluent-kafka (librdkafka): producer, consumer with explicit partitions, admin client."""

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
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
    # Not lz4: to a broker that does not serve FindCoordinator librdkafka sends such batches uncompressed.
    for codec in ("gzip", "snappy", "zstd"):
        send(producer({"compression.type": codec, "linger.ms": 200}), name, records)
    expect_all(name, records * 3)


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


run("confluent-kafka")
