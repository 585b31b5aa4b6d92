import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's Java producer, consumer and admin client against the broker at BOOTSTRAP. */
public final class Compat {
    private static final String BOOTSTRAP = Objects.requireNonNull(System.getenv("BOOTSTRAP"), "BOOTSTRAP is not set");
    /** Command that takes `restart` (SIGKILL, a start on the same port and data); null if the broker is not ours. */
    private static final String BROKER = System.getenv("BROKER");
    static final Duration DEADLINE = Duration.ofSeconds(60);
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    /**
     * Where the timestamps of a test begin: a whole second, far enough back that no broker finds a record in the
     * future, and well within 24 hours, after which Kafka forgets a producer by the times of its records.
     */
    static final long START_MS = System.currentTimeMillis() / 1000 * 1000 - Duration.ofHours(1).toMillis();

    final String prefix = "java-" + Long.toString(System.nanoTime(), 36) + "-";
    final Admin admin = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP));
    private final AtomicInteger failed = new AtomicInteger();

    public static void main(String[] arguments) {
        Compat compat = new Compat();
        compat.test("the cluster has one node, which is its controller", compat::describesTheCluster);
        compat.test("a topic is created with its partitions and configs", compat::createsATopic);
        compat.test("topics that may not be are refused with the right error", compat::refusesBadTopics);
        compat.test("a topic deleted by name or by id is gone and starts anew", compat::deletesTopics);
        for (String codec : CODECS) {
            compat.test("keys, values, headers and times sent with " + codec + " come back in order",
                () -> compat.comesBackAsSent(codec));
        }
        for (String acks : List.of("0", "1", "all")) {
            compat.test("a plain producer with acks=" + acks + " loses nothing", () -> compat.producesPlainly(acks));
        }
        compat.test("a record of 900 KB comes back through a fetch limit of 1 KB", compat::carriesABigRecord);
        for (String codec : CODECS) {
            compat.test("10,000 records in one request with " + codec + " come back in order",
                () -> compat.carriesABigBatch(codec));
        }
        compat.test("a record over max.message.bytes is too large", compat::refusesABigRecord);
        compat.test("a batch over max.message.bytes is split by the client and arrives in order",
            compat::acceptsASplitBatch);
        compat.test("a consumer seeks by offset and by time", compat::seeks);
        compat.test("the admin client finds offsets by every kind of time", compat::listsOffsets);
        compat.test("a consumer changes its partitions without losing its place", compat::changesAssignment);
        compat.test("a waiting fetch is answered when a record arrives", compat::wakesAWaitingFetch);
        compat.test("an offset out of range follows the reset policy", compat::resetsOffsets);
        compat.test("an unknown topic is an error and is not created", compat::missesAnUnknownTopic);
        compat.test("deleted records are gone and the rest is there", compat::deletesRecords);
        compat.test("partitions are added and usable, never taken away", compat::createsPartitions);
        compat.test("configs tell value, source, type, synonyms and documentation", compat::describesConfigs);
        compat.test("configs are set, deleted, appended and subtracted, or refused as a whole", compat::altersConfigs);
        compat.test("a changed config changes what the broker does", compat::obeysAConfig);
        if (BROKER != null) {
            compat.test("a queue is a topic with configs of its own", compat::configuresAQueue);
        }
        Shares shares = new Shares(compat);
        compat.test("two members of a share group share one partition, each record once", shares::sharesOnePartition);
        compat.test("records of a share group are accepted, released and rejected one by one",
            shares::acknowledgesExplicitly);
        compat.test("a poison record is delivered five times and takes no neighbour with it",
            shares::setsAPoisonRecordApart);
        compat.test("a member renews its lease of a record", shares::renewsALease);
        compat.test("what a member of a share group had is another's as soon as it leaves",
            shares::givesBackWhatAMemberHadThatLeaves);
        compat.test("the admin client describes, lists, resets and deletes share groups", shares::administersGroups);
        compat.test("groups have configs, and share groups act on them", shares::configuresGroups);
        compat.test("records that are rejected or delivered too often are told of in the group's dead letter topic",
            shares::writesDeadLetters);
        if (BROKER != null) {
            // Kafka does not tell when it has done with such a record.
            compat.test("dead letters without a topic that may have them are dropped", shares::dropsDeadLettersWithoutAPlace);
        }
        Groups groups = new Groups(compat);
        // At once, as most of their time they wait for sessions and heartbeats.
        Map<String, Test> together = new LinkedHashMap<>();
        together.put("three members share the partitions, and of two those of one that leaves",
            groups::sharesItsPartitions);
        together.put("the partitions of a killed member go to the other after its session",
            groups::outlivesAKilledMember);
        together.put("a static member that restarts has its partitions again without a rebalance",
            groups::keepsAStaticMembersPartitions);
        together.put("a static member is fenced by a second one of its name", groups::fencesAStaticMember);
        together.put("a cooperative rebalance takes no partition from a member that keeps it",
            groups::rebalancesCooperatively);
        together.put("a group has the assignor that all know, and a member without it is refused",
            groups::agreesOnAnAssignor);
        together.put("partitions added to a topic are shared by its group", groups::growsWithItsTopic);
        together.put("a group goes on exactly where it committed, metadata included", groups::goesOnWhereItCommitted);
        together.put("offsets are committed automatically, in time and on close", groups::commitsAutomatically);
        together.put("a group without an offset or with one out of range follows the reset policy",
            groups::resetsOffsets);
        together.put("the admin client describes and lists a live group and cannot take it down",
            groups::tellsOfALiveGroup);
        together.put("consumer and admin client tell the lag of a group", groups::tellsLag);
        together.put("the admin client alters and deletes offsets of an empty group, and the group",
            groups::altersAnEmptyGroup);
        together.entrySet().stream().map(test -> CompletableFuture.runAsync(
            () -> compat.test(test.getKey(), test.getValue()), task -> new Thread(task).start()
        )).toList().forEach(CompletableFuture::join);
        if (BROKER != null) {
            compat.test("after SIGKILL all that was acknowledged is there once and in order, and clients go on",
                compat::survivesAKill);
            compat.test("after SIGKILL groups have their members and offsets, and go on", groups::survivesAKill);
            compat.test("after SIGKILL a share group has what was acknowledged, and its delivery counts",
                shares::survivesAKill);
            compat.test("after SIGKILL every rejected record of a share group has its dead letter",
                shares::keepsDeadLettersThroughAKill);
            compat.test("a member that joins while the broker restarts gets its share", groups::rebalancesThroughAKill);
        }
        compat.admin.close(Duration.ZERO);
        System.exit(compat.failed.get() == 0 ? 0 : 1);
    }

    /** Whether the broker is the one that these tests are for. */
    static boolean isOurs() {
        return BROKER != null;
    }

    // --- topics ---

    private void describesTheCluster() throws Exception {
        var cluster = admin.describeCluster();
        Collection<Node> nodes = await(cluster.nodes());
        equal(1, nodes.size(), "nodes");
        Node node = nodes.iterator().next();
        equal(BOOTSTRAP, node.host() + ":" + node.port(), "address");
        equal(node, await(cluster.controller()), "controller");
        equal(22, await(cluster.clusterId()).length(), "length of the cluster id");
        equal(await(cluster.clusterId()), await(admin.describeCluster().clusterId()), "cluster id asked again");
    }

    private void createsATopic() throws Exception {
        String topic = prefix + "created";
        var configs = Map.of("retention.ms", "7200000", "cleanup.policy", "compact,delete");
        var created = admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1).configs(configs)));
        equal(3, await(created.numPartitions(topic)), "partitions answered");
        equal(1, await(created.replicationFactor(topic)), "replication factor answered");
        Uuid id = await(created.topicId(topic));
        configs.forEach((name, value) -> equal(value, value(created.config(topic), name), name + " answered"));
        await(created.all());

        TopicDescription named = description(topic);
        equal(id, named.topicId(), "topic id");
        check(!named.isInternal(), "it is internal");
        equal(List.of(0, 1, 2), named.partitions().stream().map(p -> p.partition()).toList(), "partitions");
        Node node = await(admin.describeCluster().controller());
        for (var partition : named.partitions()) {
            equal(node, partition.leader(), "leader of " + partition);
            equal(List.of(node), partition.replicas(), "replicas of " + partition);
            equal(List.of(node), partition.isr(), "in-sync replicas of " + partition);
        }
        var byId = await(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds()).get(id);
        equal(topic, byId.name(), "name by id");
        equal(3, byId.partitions().size(), "partitions by id");
        check(await(admin.listTopics().names()).contains(topic), "it is not listed");
        configs.forEach((name, value) -> equal(value, config(topic).get(name).value(), name));
    }

    private void refusesBadTopics() throws Exception {
        String topic = create("taken", 1, Map.of());
        fails(TopicExistsException.class, () -> createNow(new NewTopic(topic, 1, (short) 1)));
        fails(InvalidTopicException.class, () -> createNow(new NewTopic("no spaces", 1, (short) 1)));
        String other = prefix + "refused";
        fails(InvalidPartitionsException.class, () -> createNow(new NewTopic(other, 0, (short) 1)));
        fails(InvalidReplicationFactorException.class, () -> createNow(new NewTopic(other, 1, (short) 3)));
        for (var config : Map.of("retention.ms", "soon", "no.such.config", "1").entrySet()) {
            var bad = new NewTopic(other, 1, (short) 1).configs(Map.of(config.getKey(), config.getValue()));
            fails(InvalidConfigurationException.class, () -> createNow(bad));
        }
        var validateOnly = new CreateTopicsOptions().validateOnly(true);
        await(admin.createTopics(List.of(new NewTopic(other, 1, (short) 1)), validateOnly).all());
        check(!await(admin.listTopics().names()).contains(other), "a refused or only validated topic is listed");
    }

    private Object createNow(NewTopic topic) throws Exception {
        return await(admin.createTopics(List.of(topic)).all());
    }

    private void deletesTopics() throws Exception {
        String byName = create("deleted-by-name", 2, Map.of());
        String byId = create("deleted-by-id", 2, Map.of());
        Uuid id = description(byId).topicId();
        for (String topic : List.of(byName, byId)) {
            produce(settings(), messages(topic, 1, 10));
        }
        await(admin.deleteTopics(List.of(byName)).all());
        await(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        for (String topic : List.of(byName, byId)) {
            until("deletion of " + topic, () -> !await(admin.listTopics().names()).contains(topic));
            fails(UnknownTopicOrPartitionException.class, () -> await(admin.deleteTopics(List.of(topic)).all()));
        }
        fails(UnknownTopicIdException.class,
            () -> await(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all()));

        create("deleted-by-id", 2, Map.of());
        check(!id.equals(description(byId).topicId()), "the new topic has the id of the old one");
        equal(0L, offset(byId, 1, OffsetSpec.latest()).offset(), "end of the new topic");
        var sent = messages(byId, 1, 5);
        produce(settings(), sent);
        comesBack(sent, read(byId, 1, 0, 5));
    }

    // --- producing and reading ---

    private void comesBackAsSent(String codec) throws Exception {
        String topic = create("codec-" + codec, 3, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        for (int partition = 0; partition < 3; partition++) {
            sent.addAll(messages(topic, partition, 500));
        }
        var acknowledged = produce(settings("compression.type", codec), sent);
        for (int partition = 0; partition < 3; partition++) {
            int wanted = partition;
            var offsets = acknowledged.stream().filter(m -> m.partition() == wanted).map(m -> m.offset()).toList();
            equal(IntStream.range(0, 500).mapToObj(n -> (long) n).toList(), offsets, "acknowledged offsets");
            comesBack(sent.stream().filter(r -> r.partition() == wanted).toList(), read(topic, partition, 0, 500));
        }
        var committed = read(settings("isolation.level", "read_committed"), topic, 0, 0, 500);
        comesBack(sent.subList(0, 500), committed);
    }

    private void producesPlainly(String acks) throws Exception {
        String topic = create("acks-" + acks, 1, Map.of());
        var sent = messages(topic, 0, 1000);
        var acknowledged = produce(settings("acks", acks, "enable.idempotence", "false", "batch.size", "1000"), sent);
        for (int n = 0; n < 1000; n++) {
            equal(acks.equals("0") ? -1L : n, acknowledged.get(n).offset(), "acknowledged offset");
        }
        comesBack(sent, read(topic, 0, 0, 1000));
    }

    private void carriesABigRecord() throws Exception {
        String topic = create("big-record", 1, Map.of());
        byte[] value = new byte[900_000];
        new Random(1).nextBytes(value);
        var sent = List.of(message(topic, 0, 0), new ProducerRecord<>(topic, 0, START_MS, new byte[] {1}, value),
            message(topic, 0, 2));
        produce(settings(), sent);
        comesBack(sent,
            read(settings("max.partition.fetch.bytes", "1024", "fetch.max.bytes", "1024"), topic, 0, 0, 3));
    }

    private void carriesABigBatch(String codec) throws Exception {
        String topic = create("big-batch-" + codec, 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        for (int n = 0; n < 10_000; n++) {
            sent.add(new ProducerRecord<>(topic, 0, START_MS + n, bytes("key-" + n), bytes("value-" + n)));
        }
        var settings = settings("compression.type", codec, "batch.size", "1000000", "linger.ms", "60000");
        try (var producer = new KafkaProducer<byte[], byte[]>(settings)) {
            List<Future<RecordMetadata>> answers = new ArrayList<>();
            for (var message : sent) {
                answers.add(producer.send(message));
            }
            producer.flush();
            for (int n = 0; n < 10_000; n++) {
                equal((long) n, answers.get(n).get().offset(), "acknowledged offset");
            }
            double records = producer.metrics().entrySet().stream()
                .filter(metric -> metric.getKey().name().equals("records-per-request-avg"))
                .mapToDouble(metric -> (double) metric.getValue().metricValue()).max().orElseThrow();
            equal(10_000.0, records, "records in a request");
        }
        comesBack(sent, read(topic, 0, 0, 10_000));
    }

    private void refusesABigRecord() throws Exception {
        String topic = create("too-large", 1, Map.of("max.message.bytes", "10000"));
        var big = new ProducerRecord<>(topic, 0, START_MS, bytes("key"), new byte[20_000]);
        fails(RecordTooLargeException.class, () -> produce(settings(), List.of(big)));
        var sent = messages(topic, 0, 3);
        produce(settings(), sent);
        comesBack(sent, read(topic, 0, 0, 3));
    }

    private void acceptsASplitBatch() throws Exception {
        String topic = create("split", 1, Map.of("max.message.bytes", "10000"));
        var sent = messages(topic, 0, 1000);
        try (var producer = new KafkaProducer<byte[], byte[]>(settings("batch.size", "100000", "linger.ms", "60000"))) {
            var answers = sent.stream().map(producer::send).toList();
            producer.flush();
            for (var answer : answers) {
                await(answer);
            }
            double splits = producer.metrics().entrySet().stream()
                .filter(metric -> metric.getKey().name().equals("batch-split-total"))
                .mapToDouble(metric -> (double) metric.getValue().metricValue()).sum();
            check(splits > 0, "the client had no batch to split");
        }
        comesBack(sent, read(topic, 0, 0, 1000));
    }

    // --- consuming from somewhere ---

    private void seeks() throws Exception {
        String topic = create("seek", 2, Map.of());
        var sent = messages(topic, 0, 1000);
        produce(settings("batch.size", "2000"), sent);
        TopicPartition partition = new TopicPartition(topic, 0);
        TopicPartition empty = new TopicPartition(topic, 1);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings())) {
            equal(List.of(0, 1), consumer.partitionsFor(topic).stream().map(p -> p.partition()).sorted().toList(),
                "partitions");
            consumer.assign(List.of(partition, empty));
            for (int from : List.of(999, 0, 500, 1)) {
                consumer.seek(partition, from);
                comesBack(sent.subList(from, 1000), poll(consumer, 1000 - from));
                equal(1000L, consumer.position(partition), "position");
            }
            // The records are 10 ms apart.
            var found = consumer.offsetsForTimes(Map.of(partition, START_MS + 5001, empty, START_MS));
            equal(501L, found.get(partition).offset(), "offset by time");
            equal(START_MS + 5010, found.get(partition).timestamp(), "time of that offset");
            equal(null, found.get(empty), "offset by time in an empty partition");
            consumer.seek(partition, found.get(partition).offset());
            comesBack(sent.subList(501, 1000), poll(consumer, 499));
            found = consumer.offsetsForTimes(Map.of(partition, START_MS - 1));
            equal(0L, found.get(partition).offset(), "offset by a time before all");
            found = consumer.offsetsForTimes(Map.of(partition, START_MS + 9991));
            equal(null, found.get(partition), "offset by a time after all");

            equal(Map.of(partition, 0L, empty, 0L), consumer.beginningOffsets(List.of(partition, empty)), "beginnings");
            equal(Map.of(partition, 1000L, empty, 0L), consumer.endOffsets(List.of(partition, empty)), "ends");
            consumer.seekToEnd(List.of(partition));
            equal(1000L, consumer.position(partition), "position at the end");
            consumer.seekToBeginning(List.of(partition));
            comesBack(sent, poll(consumer, 1000));
        }
    }

    private void listsOffsets() throws Exception {
        String topic = create("offsets", 2, Map.of());
        // The latest time stands in the middle of the log.
        List<Integer> seconds = List.of(0, 10, 20, 90, 30, 40);
        for (int second : seconds) {
            produce(settings(), List.of(message(topic, 0, second * 100)));
        }
        equal(0L, offset(topic, 0, OffsetSpec.earliest()).offset(), "earliest");
        equal(6L, offset(topic, 0, OffsetSpec.latest()).offset(), "latest");
        equal(3L, offset(topic, 0, OffsetSpec.maxTimestamp()).offset(), "offset of the greatest time");
        equal(START_MS + 90_000, offset(topic, 0, OffsetSpec.maxTimestamp()).timestamp(), "greatest time");
        equal(-1L, offset(topic, 1, OffsetSpec.maxTimestamp()).offset(), "greatest time of an empty partition");
        equal(2L, offset(topic, 0, OffsetSpec.forTimestamp(START_MS + 10_001)).offset(), "offset by time");
        equal(START_MS + 20_000, offset(topic, 0, OffsetSpec.forTimestamp(START_MS + 10_001)).timestamp(),
            "time of that offset");
        equal(3L, offset(topic, 0, OffsetSpec.forTimestamp(START_MS + 50_000)).offset(), "first not before a time");
        equal(-1L, offset(topic, 0, OffsetSpec.forTimestamp(START_MS + 90_001)).offset(), "offset by a time after all");
        equal(0L, offset(topic, 0, OffsetSpec.earliestLocal()).offset(), "earliest local");
        equal(-1L, offset(topic, 0, OffsetSpec.latestTiered()).offset(), "latest tiered");
        equal(-1L, offset(topic, 0, OffsetSpec.earliestPendingUpload()).offset(), "earliest pending upload");
        fails(UnknownTopicOrPartitionException.class, () -> offset(prefix + "absent", 0, OffsetSpec.latest()));
    }

    private void changesAssignment() throws Exception {
        String topic = create("assignment", 3, Map.of());
        List<List<ProducerRecord<byte[], byte[]>>> sent = new ArrayList<>();
        for (int partition = 0; partition < 3; partition++) {
            sent.add(messages(topic, partition, 100));
            produce(settings(), sent.get(partition).subList(0, 50));
        }
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        TopicPartition two = new TopicPartition(topic, 2);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings("auto.offset.reset", "earliest"))) {
            consumer.assign(List.of(zero, one));
            comesBackByPartition(List.of(sent.get(0).subList(0, 50), sent.get(1).subList(0, 50)), poll(consumer, 100));
            consumer.assign(List.of(zero, one, two));
            comesBack(sent.get(2).subList(0, 50), poll(consumer, 50));
            consumer.pause(List.of(zero));
            consumer.assign(List.of(zero, two));
            for (var messages : sent) {
                produce(settings(), messages.subList(50, 100));
            }
            comesBack(sent.get(2).subList(50, 100), poll(consumer, 50));
            consumer.resume(List.of(zero));
            comesBack(sent.get(0).subList(50, 100), poll(consumer, 50));
        }
    }

    private void wakesAWaitingFetch() throws Exception {
        String topic = create("waiting", 1, Map.of());
        // The broker may hold an empty fetch for ten minutes: only a record can end it before the deadline.
        var settings = settings("fetch.max.wait.ms", "600000", "request.timeout.ms", "700000",
            "auto.offset.reset", "earliest");
        var sent = messages(topic, 0, 1);
        var consumer = new KafkaConsumer<byte[], byte[]>(settings);
        try {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            // This poll sends the fetch; the later ones only wait for its answer.
            equal(0, consumer.poll(Duration.ofMillis(500)).count(), "records before one was sent");
            produce(settings(), sent);
            comesBack(sent, poll(consumer, 1));
        } finally {
            // A close that waits would wait for the next fetch.
            consumer.close(CloseOptions.timeout(Duration.ZERO));
        }
    }

    private void resetsOffsets() throws Exception {
        String topic = create("reset", 1, Map.of());
        var sent = messages(topic, 0, 20);
        produce(settings(), sent);
        TopicPartition partition = new TopicPartition(topic, 0);
        await(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(5))).all());
        for (long outside : List.of(0L, 4L, 21L, 1_000_000L)) {
            try (var consumer = new KafkaConsumer<byte[], byte[]>(settings("auto.offset.reset", "none"))) {
                consumer.assign(List.of(partition));
                consumer.seek(partition, outside);
                var error = fails(OffsetOutOfRangeException.class, () -> poll(consumer, 1));
                equal(Map.of(partition, outside), error.offsetOutOfRangePartitions(), "offsets out of range");
            }
            try (var consumer = new KafkaConsumer<byte[], byte[]>(settings("auto.offset.reset", "earliest"))) {
                consumer.assign(List.of(partition));
                consumer.seek(partition, outside);
                comesBack(sent.subList(5, 20), poll(consumer, 15));
            }
            try (var consumer = new KafkaConsumer<byte[], byte[]>(settings("auto.offset.reset", "latest"))) {
                consumer.assign(List.of(partition));
                consumer.seek(partition, outside);
                until("the reset to the end", () -> {
                    equal(0, consumer.poll(Duration.ofMillis(50)).count(), "records after a reset to the end");
                    return consumer.position(partition) == 20;
                });
            }
        }
    }

    private void missesAnUnknownTopic() throws Exception {
        String topic = prefix + "unknown";
        var lost = new ProducerRecord<>(topic, bytes("key"), bytes("value"));
        var error = fails(TimeoutException.class, () -> produce(settings("max.block.ms", "2000"), List.of(lost)));
        check(error.getMessage().contains(topic + " not present in metadata"), "the producer says " + error);
        fails(UnknownTopicOrPartitionException.class,
            () -> await(admin.describeTopics(List.of(topic)).allTopicNames()));
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings())) {
            equal(List.of(), Objects.requireNonNullElse(consumer.partitionsFor(topic), List.of()), "partitions");
        }
        check(!await(admin.listTopics().names()).contains(topic), "it has been created");
    }

    private void deletesRecords() throws Exception {
        String topic = create("delete-records", 1, Map.of());
        var sent = messages(topic, 0, 100);
        produce(settings("batch.size", "500"), sent);
        TopicPartition partition = new TopicPartition(topic, 0);
        for (int before : List.of(0, 42, 42, 7, 60)) {
            var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(before)));
            long start = before == 7 ? 42 : before;
            equal(start, await(deleted.lowWatermarks().get(partition)).lowWatermark(), "low watermark");
            equal(start, offset(topic, 0, OffsetSpec.earliest()).offset(), "earliest");
            comesBack(sent.subList((int) start, 100), read(topic, 0, start, 100 - (int) start));
        }
        fails(org.apache.kafka.common.errors.OffsetOutOfRangeException.class,
            () -> await(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(101))).all()));
        var all = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(-1)));
        equal(100L, await(all.lowWatermarks().get(partition)).lowWatermark(), "low watermark of all");
        produce(settings(), sent.subList(0, 1));
        comesBack(sent.subList(0, 1), read(topic, 0, 100, 1));
    }

    private void createsPartitions() throws Exception {
        String topic = create("partitions", 1, Map.of());
        var first = messages(topic, 0, 10);
        produce(settings(), first);
        await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all());
        until("4 partitions", () -> description(topic).partitions().size() == 4);
        var added = messages(topic, 3, 10);
        produce(settings(), added);
        comesBack(added, read(topic, 3, 0, 10));
        comesBack(first, read(topic, 0, 0, 10));
        for (int count : List.of(4, 2)) {
            fails(InvalidPartitionsException.class,
                () -> await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(count))).all()));
        }
        fails(UnknownTopicOrPartitionException.class,
            () -> await(admin.createPartitions(Map.of(prefix + "absent", NewPartitions.increaseTo(2))).all()));
        equal(4, description(topic).partitions().size(), "partitions");
    }

    // --- configs ---

    private void describesConfigs() throws Exception {
        String topic = create("configs", 1, Map.of("max.message.bytes", "54321"));
        ConfigEntry size = config(topic).get("max.message.bytes");
        equal("54321", size.value(), "value");
        equal(ConfigSource.DYNAMIC_TOPIC_CONFIG, size.source(), "source");
        equal(ConfigEntry.ConfigType.INT, size.type(), "type");
        check(!size.isDefault() && !size.isReadOnly() && !size.isSensitive(), "flags of " + size);
        check(!size.documentation().isBlank(), "no documentation");
        equal(
            List.of("max.message.bytes=54321 DYNAMIC_TOPIC_CONFIG", "message.max.bytes=1048588 DEFAULT_CONFIG"),
            size.synonyms().stream().map(s -> s.name() + "=" + s.value() + " " + s.source()).toList(), "synonyms");

        ConfigEntry policy = config(topic).get("cleanup.policy");
        equal("delete", policy.value(), "default value");
        equal(ConfigSource.DEFAULT_CONFIG, policy.source(), "source of a default");
        equal(ConfigEntry.ConfigType.LIST, policy.type(), "type of a list");

        var plain = config(new ConfigResource(ConfigResource.Type.TOPIC, topic), new DescribeConfigsOptions());
        equal(config(topic).keySet(), plain.keySet(), "names without synonyms");
        check(plain.values().stream().allMatch(entry -> entry.synonyms().isEmpty()), "synonyms nobody asked for");
        check(plain.values().stream().allMatch(entry -> entry.documentation() == null), "text nobody asked for");

        String node = await(admin.describeCluster().controller()).idString();
        var broker = config(new ConfigResource(ConfigResource.Type.BROKER, node), new DescribeConfigsOptions());
        equal("false", broker.get("auto.create.topics.enable").value(), "auto.create.topics.enable of the broker");
        check(broker.get("auto.create.topics.enable").isReadOnly(), "auto.create.topics.enable is not read-only");
        fails(UnknownTopicOrPartitionException.class, () -> config(prefix + "absent"));
    }

    private void altersConfigs() throws Exception {
        String topic = create("altered", 1, Map.of());
        String retention = config(topic).get("retention.ms").value();
        alter(topic, "retention.ms", "3600000", OpType.SET);
        until("SET", () -> config(topic).get("retention.ms").value().equals("3600000"));
        alter(topic, "cleanup.policy", "compact", OpType.APPEND);
        until("APPEND", () -> Set.of(config(topic).get("cleanup.policy").value().split(","))
            .equals(Set.of("compact", "delete")));
        alter(topic, "cleanup.policy", "delete", OpType.SUBTRACT);
        until("SUBTRACT", () -> config(topic).get("cleanup.policy").value().equals("compact"));
        alter(topic, "retention.ms", null, OpType.DELETE);
        until("DELETE", () -> config(topic).get("retention.ms").source() == ConfigSource.DEFAULT_CONFIG);
        equal(retention, config(topic).get("retention.ms").value(), "value after DELETE");
        equal("compact", config(topic).get("cleanup.policy").value(), "the neighbour of a deleted config");

        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var good = new AlterConfigOp(new ConfigEntry("segment.bytes", "2097152"), OpType.SET);
        var bad = new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), OpType.SET);
        fails(InvalidConfigurationException.class,
            () -> await(admin.incrementalAlterConfigs(Map.of(resource, List.of(good, bad))).all()));
        var validateOnly = new AlterConfigsOptions().validateOnly(true);
        await(admin.incrementalAlterConfigs(Map.of(resource, List.of(good)), validateOnly).all());
        alter(topic, "max.message.bytes", "54321", OpType.SET);
        until("a later change", () -> config(topic).get("max.message.bytes").value().equals("54321"));
        equal(ConfigSource.DEFAULT_CONFIG, config(topic).get("segment.bytes").source(), "source of what was refused");
        fails(InvalidConfigurationException.class, () -> alter(topic, "no.such.config", "1", OpType.SET));
        fails(InvalidConfigurationException.class, () -> alter(topic, "retention.ms", "1", OpType.APPEND));
        fails(UnknownTopicOrPartitionException.class, () -> alter(prefix + "absent", "retention.ms", "1", OpType.SET));
    }

    private void configuresAQueue() throws Exception {
        String queue = create("queue", 1, Map.of("ottla.queue.enable", "true", "ottla.queue.delay.ms", "5"));
        ConfigEntry delay = config(queue).get("ottla.queue.delay.ms");
        equal("5", delay.value(), "value");
        equal(ConfigSource.DYNAMIC_TOPIC_CONFIG, delay.source(), "source");
        equal(ConfigEntry.ConfigType.LONG, delay.type(), "type");
        check(!delay.documentation().isBlank(), "no documentation");
        equal("30000", config(queue).get("ottla.queue.visibility.timeout.ms").value(), "default");
        alter(queue, "ottla.queue.fifo", "true", OpType.SET);
        until("SET", () -> config(queue).get("ottla.queue.fifo").value().equals("true"));
        alter(queue, "ottla.queue.delay.ms", null, OpType.DELETE);
        until("DELETE", () -> config(queue).get("ottla.queue.delay.ms").source() == ConfigSource.DEFAULT_CONFIG);
        fails(InvalidConfigurationException.class, () -> alter(queue, "ottla.queue.overflow", "explode", OpType.SET));
        fails(InvalidConfigurationException.class, () -> alter(queue, "ottla.queue.dead.letter.queue", queue, OpType.SET));
        fails(InvalidConfigurationException.class, () -> alter(queue, "ottla.queue.enable", "false", OpType.SET));
        equal("true", config(queue).get("ottla.queue.fifo").value(), "what was set before the refusals");
        String plain = create("no-queue", 1, Map.of());
        check(!config(plain).containsKey("ottla.queue.fifo"), "settings of queues on a topic that is none");
        fails(InvalidConfigurationException.class, () -> alter(plain, "ottla.queue.fifo", "true", OpType.SET));
    }

    private void obeysAConfig() throws Exception {
        String topic = create("obeyed", 1, Map.of());
        var sent = messages(topic, 0, 1);
        produce(settings(), sent);
        alter(topic, "message.timestamp.type", "LogAppendTime", OpType.SET);
        until("LogAppendTime", () -> config(topic).get("message.timestamp.type").value().equals("LogAppendTime"));
        long before = System.currentTimeMillis();
        RecordMetadata acknowledged = produce(settings(), sent).get(0);
        long after = System.currentTimeMillis();
        var records = read(topic, 0, 0, 2);
        comesBack(sent, records.subList(0, 1));
        equal(TimestampType.CREATE_TIME, records.get(0).timestampType(), "kind of time before");
        equal(TimestampType.LOG_APPEND_TIME, records.get(1).timestampType(), "kind of time after");
        equal(records.get(1).timestamp(), acknowledged.timestamp(), "time acknowledged");
        check(before <= acknowledged.timestamp() && acknowledged.timestamp() <= after, "not the time of the append");
    }

    // --- a crash ---

    private void survivesAKill() throws Exception {
        String topic = create("killed", 3, Map.of("retention.ms", "86400000"));
        TopicDescription described = description(topic);
        var cut = messages(topic, 2, 10);
        produce(settings(), cut);
        await(admin.deleteRecords(Map.of(new TopicPartition(topic, 2), RecordsToDelete.beforeOffset(4))).all());
        // Records are under way at any moment: the kill meets some that are stored and not yet acknowledged.
        Semaphore room = new Semaphore(500);
        Semaphore acknowledged = new Semaphore(0);
        AtomicBoolean enough = new AtomicBoolean();
        try (var producer = new KafkaProducer<byte[], byte[]>(settings("batch.size", "1000"));
             var consumer = new KafkaConsumer<byte[], byte[]>(settings("auto.offset.reset", "earliest"))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            var producing = CompletableFuture.supplyAsync(() -> {
                List<Future<RecordMetadata>> answers = new ArrayList<>();
                while (!enough.get()) {
                    room.acquireUninterruptibly();
                    // Even and odd answers are those of partition 0 and 1.
                    var message = message(topic, answers.size() % 2, answers.size() / 2);
                    answers.add(producer.send(message, (metadata, error) -> {
                        room.release();
                        acknowledged.release();
                    }));
                }
                return answers;
            });
            check(acknowledged.tryAcquire(2000, DEADLINE.toSeconds(), TimeUnit.SECONDS), "too slow before the kill");
            comesBack(messages(topic, 0, 500), poll(consumer, 500, 500));
            restartBroker();
            acknowledged.drainPermits();
            check(acknowledged.tryAcquire(2000, DEADLINE.toSeconds(), TimeUnit.SECONDS), "too slow after the restart");
            enough.set(true);
            var answers = await(producing);
            for (int n = 0; n < answers.size(); n++) {
                equal(n / 2L, await(answers.get(n)).offset(), "acknowledged offset");
            }
            int even = (answers.size() + 1) / 2;
            int odd = answers.size() / 2;
            comesBack(messages(topic, 0, even).subList(500, even), poll(consumer, even - 500));
            comesBack(messages(topic, 0, even), read(topic, 0, 0, even));
            comesBack(messages(topic, 1, odd), read(topic, 1, 0, odd));
        }
        comesBack(cut.subList(4, 10), read(topic, 2, 4, 6));
        equal(described.topicId(), description(topic).topicId(), "topic id after the restart");
        equal("86400000", config(topic).get("retention.ms").value(), "retention.ms after the restart");
    }

    static void restartBroker() throws Exception {
        Process restart = new ProcessBuilder(BROKER, "restart")
            .redirectOutput(ProcessBuilder.Redirect.INHERIT).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        check(restart.waitFor(DEADLINE.toSeconds(), TimeUnit.SECONDS), "the broker does not restart in time");
        equal(0, restart.exitValue(), "exit status of the restart");
    }

    // --- what tests are made of ---

    static Map<String, Object> settings(String... more) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", BOOTSTRAP);
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        settings.put("enable.auto.commit", "false");
        settings.put("allow.auto.create.topics", "false");
        for (int n = 0; n < more.length; n += 2) {
            settings.put(more[n], more[n + 1]);
        }
        return settings;
    }

    /** The n-th of the messages that tests send: 10 ms apart, some without key, without value, with headers. */
    private static ProducerRecord<byte[], byte[]> message(String topic, int partition, int n) {
        List<Header> headers = switch (n % 4) {
            case 1 -> List.of(new RecordHeader("trace", bytes("id-" + n)));
            case 2 -> List.of(new RecordHeader("twice", bytes("a")), new RecordHeader("twice", bytes("b")),
                new RecordHeader("nothing", (byte[]) null), new RecordHeader("empty", new byte[0]));
            default -> List.of();
        };
        byte[] key = n % 5 == 3 ? null : bytes("key-" + partition + "-" + n);
        byte[] value = n % 7 == 6 ? null : bytes("value of record " + n + " in " + partition + " \u00e9\u4e2d");
        return new ProducerRecord<>(topic, partition, START_MS + n * 10L, key, value, headers);
    }

    static List<ProducerRecord<byte[], byte[]>> messages(String topic, int partition, int count) {
        return IntStream.range(0, count).mapToObj(n -> message(topic, partition, n)).toList();
    }

    static List<RecordMetadata> produce(
        Map<String, Object> settings, List<ProducerRecord<byte[], byte[]>> messages
    ) throws Exception {
        try (var producer = new KafkaProducer<byte[], byte[]>(settings)) {
            List<Future<RecordMetadata>> answers = messages.stream().map(producer::send).toList();
            List<RecordMetadata> acknowledged = new ArrayList<>();
            for (var answer : answers) {
                acknowledged.add(await(answer));
            }
            return acknowledged;
        }
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(String topic, int partition, long from, int count) {
        return read(settings(), topic, partition, from, count);
    }

    /** All records from an offset to the end of the partition: `count` of them, with dense offsets. */
    private static List<ConsumerRecord<byte[], byte[]>> read(
        Map<String, Object> settings, String topic, int partition, long from, int count
    ) {
        TopicPartition wanted = new TopicPartition(topic, partition);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings)) {
            consumer.assign(List.of(wanted));
            consumer.seek(wanted, from);
            var records = poll(consumer, count);
            equal(from + count, consumer.endOffsets(List.of(wanted)).get(wanted), "end of " + wanted);
            for (int n = 0; n < count; n++) {
                equal(from + n, records.get(n).offset(), "offset in " + wanted);
            }
            return records;
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count) {
        var records = poll(consumer, count, Integer.MAX_VALUE);
        equal(count, records.size(), "records");
        return records;
    }

    /** Polls until there are `count` records. More than `atMost` are given back to the consumer. */
    static List<ConsumerRecord<byte[], byte[]>> poll(
        KafkaConsumer<byte[], byte[]> consumer, int count, int atMost
    ) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        while (records.size() < count) {
            check(System.nanoTime() < deadline, "only " + records.size() + " of " + count + " records in time");
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
        }
        if (records.size() > atMost) {
            var first = records.get(atMost);
            consumer.seek(new TopicPartition(first.topic(), first.partition()), first.offset());
            records = records.subList(0, atMost);
        }
        return records;
    }

    static void comesBack(
        List<ProducerRecord<byte[], byte[]>> sent, List<ConsumerRecord<byte[], byte[]>> received
    ) {
        equal(sent.size(), received.size(), "records");
        for (int n = 0; n < sent.size(); n++) {
            var wanted = sent.get(n);
            var found = received.get(n);
            String where = " of record " + n + " in " + found.topic() + "-" + found.partition();
            equal(wanted.topic(), found.topic(), "topic" + where);
            equal(wanted.partition(), found.partition(), "partition" + where);
            check(Arrays.equals(wanted.key(), found.key()), "another key" + where);
            check(Arrays.equals(wanted.value(), found.value()), "another value" + where);
            equal(List.of(wanted.headers().toArray()), List.of(found.headers().toArray()), "headers" + where);
            equal(wanted.timestamp(), found.timestamp(), "time" + where);
        }
    }

    private static void comesBackByPartition(
        List<List<ProducerRecord<byte[], byte[]>>> sent, List<ConsumerRecord<byte[], byte[]>> received
    ) {
        var partitions = received.stream().collect(Collectors.groupingBy(r -> r.partition(), TreeMap::new,
            Collectors.toList()));
        equal(sent.size(), partitions.size(), "partitions read");
        for (var messages : sent) {
            comesBack(messages, partitions.get(messages.get(0).partition()));
        }
    }

    /** Creates a topic of this run and waits until the broker shows it; its full name. */
    String create(String name, int partitions, Map<String, String> configs) throws Exception {
        String topic = prefix + name;
        createNow(new NewTopic(topic, partitions, (short) 1).configs(configs));
        until("creation of " + topic, () -> await(admin.listTopics().names()).contains(topic));
        return topic;
    }

    private TopicDescription description(String topic) throws Exception {
        return await(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }

    private Map<String, ConfigEntry> config(String topic) {
        return config(new ConfigResource(ConfigResource.Type.TOPIC, topic),
            new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true));
    }

    private Map<String, ConfigEntry> config(ConfigResource resource, DescribeConfigsOptions options) {
        Config config = await(admin.describeConfigs(List.of(resource), options).all()).get(resource);
        return config.entries().stream().collect(Collectors.toMap(ConfigEntry::name, entry -> entry));
    }

    private static String value(Future<Config> config, String name) {
        return await(config).get(name).value();
    }

    private Void alter(String topic, String name, String value, OpType operation) {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return await(admin.incrementalAlterConfigs(
            Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), operation)))).all());
    }

    private ListOffsetsResultInfo offset(String topic, int partition, OffsetSpec spec) {
        TopicPartition wanted = new TopicPartition(topic, partition);
        return await(admin.listOffsets(Map.of(wanted, spec)).partitionResult(wanted));
    }

    private static byte[] bytes(String text) {
        return text.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    // --- the smallest of test frameworks ---

    interface Test {
        void run() throws Exception;
    }

    private void test(String sentence, Test test) {
        try {
            test.run();
            System.out.println("PASS java " + sentence);
        } catch (Exception | AssertionError error) {
            failed.incrementAndGet();
            String lines = Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().matches("(Compat|Groups|Shares).*"))
                .map(frame -> frame.getFileName() + ":" + frame.getLineNumber()).collect(Collectors.joining(" < "));
            System.out.println("FAIL java " + sentence + ": " + error.toString().replace('\n', ' ') + " at " + lines);
        }
    }

    static void check(boolean condition, String why) {
        if (!condition) {
            throw new AssertionError(why);
        }
    }

    static void equal(Object wanted, Object found, String what) {
        check(Objects.equals(wanted, found), what + ": " + found + " instead of " + wanted);
    }

    /** Passes if the call ends in that error, which it answers with. */
    static <E extends Exception> E fails(Class<E> wanted, Callable<?> call) {
        Object result;
        try {
            result = call.call();
        } catch (Exception error) {
            check(wanted.isInstance(error), error + " instead of " + wanted.getSimpleName());
            return wanted.cast(error);
        }
        throw new AssertionError("no " + wanted.getSimpleName() + " but " + result);
    }

    /** The result of a future, or the error of the broker or client that it ended in. */
    static <T> T await(Future<T> future) {
        try {
            return future.get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
        } catch (ExecutionException error) {
            if (error.getCause() instanceof RuntimeException cause) {
                throw cause;
            }
            throw new IllegalStateException(error.getCause());
        } catch (InterruptedException | java.util.concurrent.TimeoutException error) {
            throw new AssertionError("no answer in time");
        }
    }

    /** Asks again until it is so: what an admin call changes may take a moment to be seen. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        while (!condition.call()) {
            check(System.nanoTime() < deadline, what + " is not seen in time");
        }
    }
}
