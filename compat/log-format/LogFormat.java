import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.ProduceRequestData;
import org.apache.kafka.common.message.ProduceResponseData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.requests.ResponseHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * What the suite asks of a broker, whoever it is: to be written to, and to say all that it has. `run` compares what two brokers
 * say of one directory.
 */
public final class LogFormat {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private static final long BEGIN_MS = 1_700_000_000_000L;
    private static final int KEYS = 10;
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final String bootstrap;
    private final Admin admin;

    private LogFormat(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] arguments) throws Exception {
        LogFormat broker = new LogFormat(arguments[1]);
        switch (arguments[0]) {
            // Everything that any broker can be given.
            case "write" -> broker.write();
            // What only Kafka can do as yet.
            case "transactions" -> broker.transactions();
            // A share group that is done with some of its records, and not with others.
            case "share" -> broker.share();
            // It is given those that it is not done with, each with so many deliveries, and is done with the first two of them.
            case "lend" -> broker.lend(Arrays.asList(arguments).subList(2, arguments.length));
            // Waits until the cleaner has come to the end of its work.
            case "compacted" -> broker.awaitCompaction();
            // The same topics without records, for folders that are to be put there.
            case "topics" -> {
                broker.createTopics();
                // For the topic of committed offsets.
                broker.commitByHand();
            }
            case "state" -> broker.state();
            // Idempotent producers go on where they stopped.
            case "resend" -> broker.resend(Integer.parseInt(arguments[2]), Long.parseLong(arguments[3]));
            // What another broker's metadata will not know.
            case "change" -> broker.change();
            // One more record for each partition, by clients that know nothing of before.
            case "append" -> broker.append();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        broker.admin.close();
    }

    private void createTopics() throws Exception {
        for (String codec : CODECS) create("codec-" + codec, 2, Map.of("segment.ms", "60000"));
        create("stamped", 1, Map.of("message.timestamp.type", "LogAppendTime"));
        create("compacted", 1, Map.of("cleanup.policy", "compact", "segment.ms", "1000",
            "min.cleanable.dirty.ratio", "0.01", "delete.retention.ms", "0"));
        create("prefix", 1, Map.of("segment.ms", "1000"));
        create("big", 1, Map.of("segment.bytes", "1048576"));
        create("raw", 1, Map.of());
        create("empty", 3, Map.of("retention.ms", "-1", "max.message.bytes", "2000000"));
        admin.createPartitions(Map.of("empty", NewPartitions.increaseTo(4))).all().get();
        ConfigResource raw = new ConfigResource(ConfigResource.Type.TOPIC, "raw");
        admin.incrementalAlterConfigs(Map.of(raw, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "123456789000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("segment.ms", "7654321"), AlterConfigOp.OpType.SET)))).all().get();
        admin.incrementalAlterConfigs(Map.of(raw, List.of(
            new AlterConfigOp(new ConfigEntry("segment.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
    }

    private void create(String topic, int partitions, Map<String, String> configs) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
    }

    private void write() throws Exception {
        createTopics();
        for (String codec : CODECS) {
            try (Producer<byte[], byte[]> producer = producer(Map.of("compression.type", codec, "linger.ms", "1000"))) {
                for (int number = 0; number < 60; number++) {
                    byte[] key = number % 7 == 0 ? null : bytes("key-" + number);
                    byte[] value = number % 11 == 0 ? null : bytes((codec + "-" + number + " ").repeat(20));
                    List<Header> headers = number % 3 != 0 ? List.of() : List.of(new RecordHeader("name", bytes("value")),
                        new RecordHeader("name", null), new RecordHeader("number", new byte[] {(byte) number}));
                    // Six batches a partition, every other one in a new segment, and time that runs backwards within one.
                    long timestamp = BEGIN_MS + number / 10 * 40_000L - number % 10;
                    producer.send(new ProducerRecord<>("codec-" + codec, number % 2, timestamp, key, value, headers));
                    if (number % 10 == 9) producer.flush();
                }
            }
        }
        try (Producer<byte[], byte[]> producer = producer(Map.of("compression.type", "lz4"))) {
            for (int number = 0; number < 5; number++) {
                producer.send(new ProducerRecord<>("stamped", 0, BEGIN_MS, null, bytes("stamped-" + number))).get();
            }
            for (int number = 0; number < 20; number++) {
                producer.send(new ProducerRecord<>("prefix", 0, BEGIN_MS + number * 500L, null, bytes("prefix-" + number))).get();
            }
            for (int round = 0; round < 3; round++) {
                for (int key = 0; key < KEYS; key++) {
                    // The last round takes every other key away.
                    byte[] value = round == 2 && key % 2 == 0 ? null : bytes("round-" + round);
                    long timestamp = BEGIN_MS + round * 10_000L + key * 1_000L;
                    producer.send(new ProducerRecord<>("compacted", 0, timestamp, bytes("key-" + key), value)).get();
                }
            }
            producer.send(new ProducerRecord<>("compacted", 0, BEGIN_MS + 60_000L, bytes("end"), bytes("end"))).get();
        }
        try (Producer<byte[], byte[]> producer = producer(Map.of("max.request.size", "1000000"))) {
            for (int number = 0; number < 6; number++) {
                producer.send(new ProducerRecord<>("big", 0, BEGIN_MS + number, null, new byte[700_000])).get();
            }
        }
        admin.deleteRecords(Map.of(new TopicPartition("prefix", 0), RecordsToDelete.beforeOffset(7))).all().get();
        for (int number = 0; number < 7; number++) expect(Errors.NONE, 2 * number, sendRaw(2 * number));
        commit("members", "codec-none");
        commitByHand();
    }

    private void commitByHand() throws Exception {
        admin.alterConsumerGroupOffsets("offsets", Map.of(
            new TopicPartition("raw", 0), new OffsetAndMetadata(3, Optional.of(0), "by hand"),
            new TopicPartition("empty", 2), new OffsetAndMetadata(0))).all().get();
    }

    /** A group of one member that commits what it has read, twice. */
    private void commit(String group, String topic) {
        Map<String, Object> configs = Map.of("group.id", group, "auto.offset.reset", "earliest", "max.poll.records", "10");
        try (Consumer<byte[], byte[]> consumer = consumer(configs)) {
            consumer.subscribe(List.of(topic));
            int[] read = {0};
            for (int rounds = 1; rounds <= 2; rounds++) {
                int wanted = rounds * 10;
                await("a member gets records", () -> (read[0] += consumer.poll(Duration.ofMillis(200)).count()) >= wanted);
                consumer.commitSync();
            }
        }
    }

    private void transactions() throws Exception {
        create("transactional", 2, Map.of("segment.ms", "1000"));
        try (Consumer<byte[], byte[]> ledgers = consumer(Map.of("group.id", "ledgers"));
             Producer<byte[], byte[]> producer = producer(Map.of("transactional.id", "ledger", "compression.type", "zstd"))) {
            producer.initTransactions();
            for (int round = 0; round < 6; round++) {
                producer.beginTransaction();
                for (int partition = 0; partition < 2; partition++) {
                    long timestamp = BEGIN_MS + round * 1_500L;
                    producer.send(new ProducerRecord<>("transactional", partition, timestamp, null, bytes("round-" + round)));
                }
                producer.flush();
                if (round % 3 == 1) {
                    producer.abortTransaction();
                } else {
                    TopicPartition read = new TopicPartition("codec-gzip", 0);
                    producer.sendOffsetsToTransaction(Map.of(read, new OffsetAndMetadata(round)), ledgers.groupMetadata());
                    producer.commitTransaction();
                }
            }
        }
    }

    private void share() throws Exception {
        create("lent", 1, Map.of());
        try (Producer<byte[], byte[]> producer = producer(Map.of())) {
            for (int number = 0; number < 12; number++) {
                producer.send(new ProducerRecord<>("lent", 0, BEGIN_MS + number, null, bytes("lent-" + number))).get();
            }
        }
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, "lenders");
        admin.incrementalAlterConfigs(Map.of(group, List.of(
            new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET)))).all().get();
        AcknowledgeType[] verdicts = new AcknowledgeType[12];
        for (int offset : new int[] {0, 1, 2, 3, 6, 7}) verdicts[offset] = AcknowledgeType.ACCEPT;
        verdicts[5] = AcknowledgeType.REJECT;
        lend(IntStream.range(0, 12).mapToObj(offset -> offset + ":1").toList(), verdicts);
    }

    private void lend(List<String> expected) {
        lend(expected, new AcknowledgeType[] {AcknowledgeType.ACCEPT, AcknowledgeType.ACCEPT});
    }

    /** What has no verdict comes back as the consumer is closed, and not before: it would be fetched once more. */
    private void lend(List<String> expected, AcknowledgeType[] verdicts) {
        Map<String, Object> configs = Map.of("bootstrap.servers", bootstrap, "group.id", "lenders",
            "share.acknowledgement.mode", "explicit");
        try (KafkaShareConsumer<byte[], byte[]> consumer =
                 new KafkaShareConsumer<>(configs, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of("lent"));
            List<ConsumerRecord<byte[], byte[]>> lent = new ArrayList<>();
            await("a share group gets records", () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(lent::add);
                return !lent.isEmpty();
            });
            List<String> got = lent.stream().map(record -> record.offset() + ":" + record.deliveryCount().get()).toList();
            // What was stored apart may come apart.
            if (got.size() < verdicts.length || got.size() > expected.size() || !got.equals(expected.subList(0, got.size()))) {
                throw new AssertionError("expected " + expected + ", got " + got);
            }
            for (int index = 0; index < verdicts.length; index++) {
                if (verdicts[index] != null) consumer.acknowledge(lent.get(index), verdicts[index]);
            }
            consumer.commitSync().forEach((partition, error) -> {
                if (error.isPresent()) throw new AssertionError(partition + ": " + error);
            });
        }
    }

    /** Of 31 records the newest of each key stay, and go in the next round if they are tombstones. */
    private void awaitCompaction() throws Exception {
        TopicPartition partition = new TopicPartition("compacted", 0);
        await("the cleaner has cleaned", () -> records(partition).size() <= KEYS + 1);
        try (Producer<byte[], byte[]> producer = producer(Map.of())) {
            producer.send(new ProducerRecord<>("compacted", 0, BEGIN_MS + 120_000L, bytes("more"), bytes("more"))).get();
        }
        await("tombstones have gone", () -> records(partition).size() == KEYS / 2 + 2);
    }

    /** Sends batches of the producer of `raw` again, and what may and may not follow them. */
    private void resend(int sequence, long end) throws Exception {
        // Only the last of them is in a snapshot; it is answered with its place.
        expect(Errors.NONE, sequence - 2, sendRaw(sequence - 2));
        expect(Errors.OUT_OF_ORDER_SEQUENCE_NUMBER, -1, sendRaw(sequence + 2));
        expect(Errors.NONE, end, sendRaw(sequence));
    }

    /** A topic is made, one deleted, and one gets another config. */
    private void change() throws Exception {
        create("made", 1, Map.of());
        try (Producer<byte[], byte[]> producer = producer(Map.of())) {
            producer.send(new ProducerRecord<>("made", 0, null, bytes("made"))).get();
        }
        admin.deleteTopics(List.of("stamped")).all().get();
        ConfigResource raw = new ConfigResource(ConfigResource.Type.TOPIC, "raw");
        admin.incrementalAlterConfigs(Map.of(raw, List.of(
            new AlterConfigOp(new ConfigEntry("segment.ms", "5"), AlterConfigOp.OpType.SET)))).all().get();
    }

    private void append() throws Exception {
        try (Producer<byte[], byte[]> producer = producer(Map.of())) {
            for (TopicDescription topic : topics()) {
                for (int partition = 0; partition < topic.partitions().size(); partition++) {
                    producer.send(new ProducerRecord<>(topic.name(), partition, bytes("key"), bytes("appended"))).get();
                }
            }
        }
    }

    private static void expect(Errors error, long baseOffset, ProduceResponseData.PartitionProduceResponse answer) {
        if (answer.errorCode() != error.code() || answer.baseOffset() != baseOffset) {
            throw new AssertionError("expected " + error + " at " + baseOffset + ", got " + answer);
        }
    }

    /** Two records of producer 4242, of now: Kafka forgets producers whose records are a day old. */
    private ProduceResponseData.PartitionProduceResponse sendRaw(int sequence) throws Exception {
        SimpleRecord[] two = IntStream.range(sequence, sequence + 2)
            .mapToObj(number -> new SimpleRecord(System.currentTimeMillis(), null, bytes("raw-" + number))).toArray(SimpleRecord[]::new);
        MemoryRecords records = MemoryRecords.withIdempotentRecords(Compression.NONE, 4242, (short) 3, sequence, two);
        ProduceRequestData.TopicProduceDataCollection topics = new ProduceRequestData.TopicProduceDataCollection();
        topics.add(new ProduceRequestData.TopicProduceData().setName("raw").setPartitionData(
            List.of(new ProduceRequestData.PartitionProduceData().setIndex(0).setRecords(records))));
        ProduceRequestData data = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(10_000).setTopicData(topics);
        short version = 11;
        ByteBuffer request = new ProduceRequest(data, version)
            .serializeWithHeader(new RequestHeader(ApiKeys.PRODUCE, version, "log-format", 1));
        String[] address = bootstrap.split(":");
        try (Socket socket = new Socket(address[0], Integer.parseInt(address[1]))) {
            DataOutputStream out = new DataOutputStream(socket.getOutputStream());
            byte[] frame = new byte[request.remaining()];
            request.get(frame);
            out.writeInt(frame.length);
            out.write(frame);
            out.flush();
            DataInputStream in = new DataInputStream(socket.getInputStream());
            ByteBuffer answer = ByteBuffer.wrap(in.readNBytes(in.readInt()));
            ResponseHeader.parse(answer, ApiKeys.PRODUCE.responseHeaderVersion(version));
            ProduceResponse response = ProduceResponse.parse(new ByteBufferAccessor(answer), version);
            return response.data().responses().iterator().next().partitionResponses().get(0);
        }
    }

    /** All that clients can see, as lines in an order that does not depend on the broker. */
    private void state() throws Exception {
        for (TopicDescription topic : topics()) {
            System.out.printf("topic %s id %s partitions %d configs %s%n", topic.name(), topic.topicId(), topic.partitions().size(),
                configs(topic.name()));
            for (int partition = 0; partition < topic.partitions().size(); partition++) {
                describe(new TopicPartition(topic.name(), partition));
            }
        }
        for (String group : new TreeSet<>(admin.listGroups().all().get().stream().filter(listing -> !listing.type().equals(Optional.of(GroupType.SHARE)))
                .map(listing -> listing.groupId()).toList())) {
            Map<TopicPartition, OffsetAndMetadata> offsets =
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            offsets.entrySet().stream().sorted(Comparator.comparing(entry -> entry.getKey().toString()))
                .forEach(entry -> System.out.printf("group %s %s %s%n", group, entry.getKey(), entry.getValue()));
        }
    }

    private List<TopicDescription> topics() throws Exception {
        Set<String> names = admin.listTopics().names().get();
        return new ArrayList<>(new TreeMap<>(admin.describeTopics(names).allTopicNames().get()).values());
    }

    private Map<String, String> configs(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return new TreeMap<>(admin.describeConfigs(List.of(resource)).all().get().get(resource).entries().stream()
            .filter(entry -> entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG)
            .collect(Collectors.toMap(ConfigEntry::name, ConfigEntry::value)));
    }

    private void describe(TopicPartition partition) throws Exception {
        List<ConsumerRecord<byte[], byte[]>> records = records(partition);
        // Not their epochs: they are those of now.
        System.out.printf("  %s earliest %s latest %s newest %s", partition, offset(partition, OffsetSpec.earliest()).split("/")[0],
            offset(partition, OffsetSpec.latest()).split("/")[0], offset(partition, OffsetSpec.maxTimestamp()));
        for (long seconds : new long[] {0, 1, 3, 5, 9, 10, 20, 60, 100, 1_000}) {
            long timestamp = BEGIN_MS + seconds * 1_000;
            // Of a time before the first record Kafka says nothing where records have been deleted.
            if (!records.isEmpty() && timestamp >= records.get(0).timestamp()) {
                System.out.printf(" at %d %s", seconds, offset(partition, OffsetSpec.forTimestamp(timestamp)));
            }
        }
        System.out.println();
        for (ConsumerRecord<byte[], byte[]> record : records) {
            StringBuilder headers = new StringBuilder();
            for (Header header : record.headers()) headers.append(header.key()).append('=').append(text(header.value())).append(' ');
            System.out.printf("    %d epoch %s %s %d key %s value %s headers %s%n", record.offset(), record.leaderEpoch().orElse(-1),
                record.timestampType(), record.timestamp(), text(record.key()), text(record.value()), headers);
        }
    }

    private String offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        var found = admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get();
        return found.offset() + "/" + found.timestamp() + "/" + found.leaderEpoch().orElse(-1);
    }

    private List<ConsumerRecord<byte[], byte[]>> records(TopicPartition partition) {
        try (Consumer<byte[], byte[]> consumer = consumer(Map.of())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
            await("all records of " + partition, () -> {
                if (consumer.position(partition) < end) consumer.poll(Duration.ofMillis(500)).forEach(records::add);
                return consumer.position(partition) >= end;
            });
            return records;
        }
    }

    private Producer<byte[], byte[]> producer(Map<String, Object> configs) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", "0", "acks", "all"));
        all.putAll(configs);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private Consumer<byte[], byte[]> consumer(Map<String, Object> configs) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", "false"));
        all.putAll(configs);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void await(String what, BooleanSupplier condition) {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > deadline) throw new AssertionError("not within " + PATIENCE + ": " + what);
            Thread.onSpinWait();
        }
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        if (bytes == null) return "null";
        String hex = HexFormat.of().formatHex(bytes);
        return hex.length() <= 80 ? hex : hex.substring(0, 60) + "… " + bytes.length + " bytes, hash " + Arrays.hashCode(bytes);
    }
}
