import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** Share groups. Each test has a topic and a group of its own, of the same name, so they may run at once. */
final class Shares {
    private final Compat compat;
    private final Admin admin;

    Shares(Compat compat) {
        this.compat = compat;
        this.admin = compat.admin;
    }

    void sharesOnePartition() throws Exception {
        String group = fromTheStart("share-one", 1);
        try (Worker one = new Worker(group, "implicit"); Worker two = new Worker(group, "implicit")) {
            produce(group, 0, 500);
            List<Integer> done = new ArrayList<>();
            eventually("all records", () -> {
                one.poll().forEach(record -> done.add(number(record)));
                two.poll().forEach(record -> done.add(number(record)));
                return done.size() >= 500;
            });
            Compat.equal(IntStream.range(0, 500).boxed().toList(), done.stream().sorted().toList(), "records");
            one.consumer.commitSync();
            two.consumer.commitSync();
            Compat.equal(500L, offset(group).startOffset(), "start offset");
            Compat.equal(0L, offset(group).lag().orElse(-1L), "lag");
        }
    }

    void acknowledgesExplicitly() throws Exception {
        String group = fromTheStart("share-explicit", 1);
        produce(group, 0, 6);
        try (Worker worker = new Worker(group, "explicit")) {
            var first = worker.take(6);
            for (var record : first) {
                Compat.equal((short) 1, record.deliveryCount().orElseThrow(), "deliveries");
                worker.consumer.acknowledge(record, switch (number(record)) {
                    case 1, 3 -> AcknowledgeType.RELEASE;
                    case 4 -> AcknowledgeType.REJECT;
                    default -> AcknowledgeType.ACCEPT;
                });
            }
            worker.commit();
            // A record between two that are done does not keep them from being counted.
            Compat.equal(1L, offset(group).startOffset(), "start offset");
            Compat.equal(2L, offset(group).lag().orElse(-1L), "lag");
            var second = worker.take(2);
            Compat.equal(List.of(1, 3), second.stream().map(Shares::number).toList(), "released records");
            for (var record : second) {
                Compat.equal((short) 2, record.deliveryCount().orElseThrow(), "deliveries");
                worker.consumer.acknowledge(record);
            }
            worker.commit();
            produce(group, 6, 7);
            Compat.equal(List.of(6), worker.take(1).stream().map(Shares::number).toList(), "what is left");
        }
    }

    void setsAPoisonRecordApart() throws Exception {
        String group = fromTheStart("share-poison", 1);
        // One batch, of which record 1 is never dealt with.
        produce(group, 0, 3);
        try (Worker worker = new Worker(group, "explicit")) {
            Set<Integer> done = new HashSet<>();
            Map<Integer, Short> deliveries = new HashMap<>();
            eventually("the other records are done", () -> {
                var records = worker.poll();
                boolean poisoned = records.stream().anyMatch(record -> number(record) == 1);
                for (var record : records) {
                    deliveries.put(number(record), record.deliveryCount().orElseThrow());
                    worker.consumer.acknowledge(record, poisoned ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
                    if (!poisoned) {
                        done.add(number(record));
                    }
                }
                worker.commit();
                return offset(group) != null && offset(group).startOffset() == 3;
            });
            Compat.equal(Set.of(0, 2), done, "records done");
            Compat.equal((short) 5, deliveries.get(1), "deliveries of the poison record");
            Compat.check(deliveries.get(0) < 5 && deliveries.get(2) < 5, "others wore out with it: " + deliveries);
        }
    }

    void renewsALease() throws Exception {
        String group = fromTheStart("share-renew", 1);
        produce(group, 0, 2);
        try (Worker worker = new Worker(group, "explicit")) {
            var records = worker.take(2);
            worker.consumer.acknowledge(records.get(0), AcknowledgeType.ACCEPT);
            worker.consumer.acknowledge(records.get(1), AcknowledgeType.RENEW);
            worker.commit();
            // The client hands the renewed record out again, as the same delivery.
            var renewed = worker.take(1).get(0);
            Compat.equal(1, number(renewed), "renewed record");
            Compat.equal((short) 1, renewed.deliveryCount().orElseThrow(), "deliveries");
            worker.consumer.acknowledge(renewed, AcknowledgeType.ACCEPT);
            worker.commit();
            Compat.equal(2L, offset(group).startOffset(), "start offset");
        }
    }

    void givesBackWhatAMemberHadThatLeaves() throws Exception {
        String group = fromTheStart("share-leaves", 1);
        produce(group, 0, 10);
        try (Worker stays = new Worker(group, "explicit")) {
            Worker leaves = new Worker(group, "explicit");
            Compat.equal(10, leaves.take(10).size(), "records of the first");
            leaves.close();
            // Much sooner than its lease would end.
            var again = stays.take(10);
            Compat.check(again.stream().allMatch(record -> record.deliveryCount().orElseThrow() == 2), "not again");
        }
    }

    void administersGroups() throws Exception {
        String group = fromTheStart("share-admin", 2);
        produce(group, 0, 20);
        try (Worker worker = new Worker(group, "implicit")) {
            worker.take(20);
            worker.commit();
            var description = describe(group);
            Compat.equal(GroupState.STABLE, description.groupState(), "state");
            Compat.equal(1, description.members().size(), "members");
            var member = description.members().iterator().next();
            Compat.equal(Set.of(new TopicPartition(group, 0), new TopicPartition(group, 1)),
                member.assignment().topicPartitions(), "assignment");
            Compat.fails(GroupNotEmptyException.class, () -> Compat.await(
                admin.alterShareGroupOffsets(group, Map.of(new TopicPartition(group, 0), 0L)).all()));
            Compat.fails(GroupNotEmptyException.class, () -> Compat.await(admin.deleteShareGroups(List.of(group)).all()));
        }
        Compat.until("the group is empty", () -> describe(group).groupState() == GroupState.EMPTY);
        var listed = Compat.await(admin.listGroups(ListGroupsOptions.forShareGroups()).all());
        var listing = listed.stream().filter(found -> found.groupId().equals(group)).toList();
        Compat.equal(List.of(GroupType.SHARE), listing.stream().map(found -> found.type().orElseThrow()).toList(), "type");
        Compat.await(admin.alterShareGroupOffsets(group, Map.of(new TopicPartition(group, 0), 5L)).all());
        Compat.equal(5L, offset(group).startOffset(), "start offset as set");
        Compat.equal(5L, offset(group).lag().orElse(-1L), "lag as set");
        try (Worker worker = new Worker(group, "implicit")) {
            var again = worker.take(5);
            Compat.equal(IntStream.range(5, 10).boxed().toList(),
                again.stream().map(record -> (int) record.offset()).sorted().toList(), "records from there on");
            worker.commit();
        }
        Compat.until("the group is empty again", () -> describe(group).groupState() == GroupState.EMPTY);
        Compat.await(admin.deleteShareGroupOffsets(group, Set.of(group)).all());
        Compat.check(offsets(group).isEmpty(), "offsets are left");
        Compat.await(admin.deleteShareGroups(List.of(group)).all());
        Compat.fails(GroupIdNotFoundException.class, () -> describe(group));
        var left = Compat.await(admin.listGroups(ListGroupsOptions.forShareGroups()).all());
        Compat.check(left.stream().map(GroupListing::groupId).noneMatch(group::equals), "the group is listed");
    }

    void configuresGroups() throws Exception {
        String group = fromTheStart("share-configs", 1);
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        var config = Compat.await(admin.describeConfigs(List.of(resource)).all()).get(resource);
        Compat.equal("earliest", config.get("share.auto.offset.reset").value(), "reset");
        Compat.equal(ConfigEntry.ConfigSource.DYNAMIC_GROUP_CONFIG, config.get("share.auto.offset.reset").source(), "source");
        Compat.equal("30000", config.get("share.record.lock.duration.ms").value(), "lock duration");
        var found = Compat.await(admin.listConfigResources(Set.of(ConfigResource.Type.GROUP),
            new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all());
        Compat.check(found.contains(resource), "the group's configs are not listed");
        set(group, "share.delivery.count.limit", "2");
        Compat.fails(InvalidConfigurationException.class, () -> {
            set(group, "share.delivery.count.limit", "99");
            return null;
        });
        produce(group, 0, 1);
        try (Worker worker = new Worker(group, "explicit")) {
            for (int delivery = 1; delivery <= 2; delivery++) {
                var record = worker.take(1).get(0);
                Compat.equal((short) delivery, record.deliveryCount().orElseThrow(), "deliveries");
                worker.consumer.acknowledge(record, AcknowledgeType.RELEASE);
                worker.commit();
            }
            Compat.equal(1L, offset(group).startOffset(), "start offset after the last delivery");
        }
    }

    void writesDeadLetters() throws Exception {
        for (boolean copies : List.of(false, true)) {
            String group = fromTheStart("share-dead-" + copies, 3);
            String letters = withDeadLetters(group, 2);
            set(group, "errors.deadletterqueue.copy.record.enable", Boolean.toString(copies));
            set(group, "share.delivery.count.limit", "2");
            var headers = List.<Header>of(new RecordHeader("trace", "7".getBytes()), new RecordHeader("nothing", null));
            Compat.produce(Compat.settings(), IntStream.range(0, 4).mapToObj(n ->
                new ProducerRecord<>(group, 2, ("key " + n).getBytes(), Integer.toString(n).getBytes(), headers)).toList());
            try (Worker worker = new Worker(group, "explicit")) {
                // 0 and 3 are dealt with, 1 is rejected, 2 is released as often as it may be.
                for (var record : worker.take(4)) {
                    worker.consumer.acknowledge(record, switch (number(record)) {
                        case 1 -> AcknowledgeType.REJECT;
                        case 2 -> AcknowledgeType.RELEASE;
                        default -> AcknowledgeType.ACCEPT;
                    });
                }
                worker.commit();
                worker.take(1).forEach(record -> worker.consumer.acknowledge(record, AcknowledgeType.RELEASE));
                worker.commit();
            }
            var found = read(letters, 2);
            Compat.equal(Set.of(0), found.stream().map(ConsumerRecord::partition).collect(Collectors.toSet()), "partitions");
            for (var letter : found) {
                boolean rejected = "1".equals(header(letter, "__dlq.errors.offset"));
                List<String> expected = new ArrayList<>(List.of("__dlq.errors.topic=" + group, "__dlq.errors.partition=2",
                    "__dlq.errors.offset=" + (rejected ? 1 : 2), "__dlq.errors.group=" + group,
                    "__dlq.errors.delivery.count=" + (rejected ? 1 : 2),
                    "__dlq.errors.message=" + (rejected ? "Offset rejected by client." : "Offset delivery count exceeded the threshold.")));
                var all = texts(letter.headers());
                Compat.equal(expected, all.subList(0, expected.size()), "headers of the letter");
                // Kafka 4.4.0 leaves out the record's own, also where it copies the record.
                List<String> own = copies && Compat.isOurs() ? List.of("trace=7", "nothing=null") : List.of();
                Compat.equal(own, all.subList(expected.size(), all.size()), "headers of the record");
                Compat.equal(copies ? "key " + (rejected ? 1 : 2) : null, text(letter.key()), "key");
                Compat.equal(copies ? rejected ? "1" : "2" : null, text(letter.value()), "value");
                Compat.check(letter.timestamp() > System.currentTimeMillis() - Compat.DEADLINE.toMillis(), "time " + letter.timestamp());
            }
        }
    }

    void dropsDeadLettersWithoutAPlace() throws Exception {
        // Not made by anybody, not for dead letters, and of a name that is not for them.
        String missing = "dlq." + compat.prefix + "missing", other = "dlq." + compat.prefix + "other", strange = compat.prefix + "strange";
        Compat.await(admin.createTopics(List.of(new NewTopic(other, 1, (short) 1), new NewTopic(strange, 1, (short) 1)
            .configs(Map.of("errors.deadletterqueue.group.enable", "true")))).all());
        for (String place : List.of(missing, other, strange)) {
            String group = fromTheStart("share-nowhere-" + place.charAt(place.length() - 1), 1);
            set(group, "errors.deadletterqueue.topic.name", place);
            produce(group, 0, 1);
            try (Worker worker = new Worker(group, "explicit")) {
                worker.take(1).forEach(record -> worker.consumer.acknowledge(record, AcknowledgeType.REJECT));
                worker.commit();
                Compat.until("the record is done", () -> offset(group).startOffset() == 1);
            }
        }
        for (String place : List.of(other, strange)) {
            var ends = Compat.await(admin.listOffsets(Map.of(new TopicPartition(place, 0), OffsetSpec.latest())).all());
            Compat.equal(0L, ends.get(new TopicPartition(place, 0)).offset(), "records of " + place);
        }
        String group = fromTheStart("share-internal", 1);
        Compat.fails(InvalidConfigurationException.class, () -> {
            set(group, "errors.deadletterqueue.topic.name", "__consumer_offsets");
            return null;
        });
    }

    void keepsDeadLettersThroughAKill() throws Exception {
        String group = fromTheStart("share-dead-crash", 1);
        String letters = withDeadLetters(group, 1);
        produce(group, 0, 400);
        String[] few = {"max.poll.records", "20", "share.acquire.mode", "record_limit"};
        Set<String> rejected = new HashSet<>();
        try (Worker worker = new Worker(group, "explicit", few)) {
            while (rejected.size() < 300) {
                var records = worker.poll();
                records.forEach(record -> worker.consumer.acknowledge(record, AcknowledgeType.REJECT));
                worker.commit();
                records.forEach(record -> rejected.add(Long.toString(record.offset())));
                if (!records.isEmpty() && rejected.size() % 100 == 0) {
                    Compat.restartBroker();
                }
            }
            Compat.until("all that was rejected is done", () -> offset(group).startOffset() >= 300);
        }
        var found = read(letters, 300).stream().map(letter -> header(letter, "__dlq.errors.offset")).toList();
        Compat.equal(rejected, new HashSet<>(found), "records that have a letter");
        // What was under way at one of the three kills may have two.
        Compat.check(found.size() <= 300 + 3 * 100, "letters: " + found.size());
    }

    void survivesAKill() throws Exception {
        String group = fromTheStart("share-crash", 2);
        String idle = fromTheStart("share-crash-idle", 1);
        produce(idle, 0, 10);
        produce(group, 0, 200);
        try (Worker gone = new Worker(idle, "explicit")) {
            var records = gone.take(10);
            records.stream().limit(4).forEach(gone.consumer::acknowledge);
            gone.commit();
        }
        String[] few = {"max.poll.records", "10", "share.acquire.mode", "record_limit"};
        try (Worker one = new Worker(group, "explicit", few); Worker two = new Worker(group, "explicit", few)) {
            Set<Integer> done = new HashSet<>();
            for (Worker worker : List.of(one, two)) {
                eventually("records for each", () -> {
                    var records = worker.poll();
                    Compat.check(records.size() <= 10, "more records than asked for: " + records.size());
                    records.forEach(record -> {
                        worker.consumer.acknowledge(record);
                        done.add(number(record));
                    });
                    worker.commit();
                    return !records.isEmpty();
                });
            }

            Compat.restartBroker();

            var left = IntStream.range(0, 250).boxed().filter(n -> !done.contains(n)).collect(Collectors.toSet());
            produce(group, 200, 250);
            Set<Integer> after = new HashSet<>();
            eventually("the rest", () -> {
                for (Worker worker : List.of(one, two)) {
                    for (var record : worker.poll()) {
                        Compat.check(!done.contains(number(record)), "acknowledged before the kill: " + record);
                        worker.consumer.acknowledge(record);
                        after.add(number(record));
                    }
                    worker.consumer.commitSync();
                }
                return after.containsAll(left);
            });
            Compat.until("all is done", () ->
                offsets(group).values().stream().mapToLong(info -> info.lag().orElse(-1L)).sum() == 0);
        }
        Compat.equal(4L, offset(idle).startOffset(), "start offset of the idle group");
        try (Worker worker = new Worker(idle, "explicit")) {
            var again = worker.take(6);
            Compat.equal(List.of(4, 5, 6, 7, 8, 9), again.stream().map(Shares::number).toList(), "records left");
            again.forEach(record -> Compat.equal((short) 2, record.deliveryCount().orElseThrow(), "deliveries"));
        }
    }

    // --- what tests are made of ---

    /** A topic, and a group of its name that begins with the first record. */
    private String fromTheStart(String name, int partitions) throws Exception {
        String group = compat.create(name, partitions, Map.of());
        set(group, "share.auto.offset.reset", "earliest");
        return group;
    }

    private void set(String group, String name, String value) {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        var change = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        Compat.await(admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all());
    }

    private void produce(String topic, int from, int to) throws Exception {
        int partitions = Compat.await(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
        Compat.produce(Compat.settings("linger.ms", "50"), IntStream.range(from, to).mapToObj(n ->
            new ProducerRecord<byte[], byte[]>(topic, n % partitions, null, Integer.toString(n).getBytes())).toList());
    }

    /** Gives a group a topic for its dead letters. */
    private String withDeadLetters(String group, int partitions) {
        String letters = "dlq." + group;
        var topic = new NewTopic(letters, partitions, (short) 1).configs(Map.of("errors.deadletterqueue.group.enable", "true"));
        Compat.await(admin.createTopics(List.of(topic)).all());
        set(group, "errors.deadletterqueue.topic.name", letters);
        return letters;
    }

    /** All records of a topic, once there are so many. */
    private List<ConsumerRecord<byte[], byte[]>> read(String topic, int count) throws Exception {
        var partitions = Compat.await(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions();
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(Compat.settings())) {
            var all = partitions.stream().map(partition -> new TopicPartition(topic, partition.partition())).toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            eventually(count + " records of " + topic, () -> {
                consumer.poll(Duration.ofMillis(100)).forEach(found::add);
                return found.size() >= count && consumer.endOffsets(all).values().stream().mapToLong(n -> n).sum() == found.size();
            });
        }
        return found;
    }

    private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
        return text(record.headers().lastHeader(name).value());
    }

    private static List<String> texts(Iterable<Header> headers) {
        List<String> texts = new ArrayList<>();
        headers.forEach(header -> texts.add(header.key() + "=" + text(header.value())));
        return texts;
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes);
    }

    private static int number(ConsumerRecord<byte[], byte[]> record) {
        return Integer.parseInt(new String(record.value()));
    }

    private ShareGroupDescription describe(String group) {
        return Compat.await(admin.describeShareGroups(List.of(group)).all()).get(group);
    }

    private Map<TopicPartition, SharePartitionOffsetInfo> offsets(String group) {
        return Compat.await(admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec()))
            .partitionsToOffsetInfo(group));
    }

    private SharePartitionOffsetInfo offset(String group) {
        return offsets(group).get(new TopicPartition(group, 0));
    }

    private static void eventually(String what, java.util.concurrent.Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + Compat.DEADLINE.toNanos();
        while (!condition.call()) {
            Compat.check(System.nanoTime() < deadline, "not in time: " + what);
        }
    }

    /** A member of the group of that name. */
    private static final class Worker implements AutoCloseable {
        final KafkaShareConsumer<byte[], byte[]> consumer;

        Worker(String group, String mode, String... more) {
            Map<String, Object> settings = Compat.settings("group.id", group, "share.acknowledgement.mode", mode);
            settings.remove("enable.auto.commit");
            for (int n = 0; n < more.length; n += 2) {
                settings.put(more[n], more[n + 1]);
            }
            consumer = new KafkaShareConsumer<>(settings);
            consumer.subscribe(List.of(group));
        }

        List<ConsumerRecord<byte[], byte[]>> poll() {
            List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
            return records;
        }

        /** Polls until there are that many. Only one poll may have records where they must be acknowledged before the next. */
        List<ConsumerRecord<byte[], byte[]>> take(int count) throws Exception {
            List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
            eventually(count + " records", () -> {
                if (records.size() < count) {
                    records.addAll(poll());
                }
                return records.size() >= count;
            });
            Compat.equal(count, records.size(), "records");
            return records;
        }

        void commit() {
            consumer.commitSync().forEach((partition, error) ->
                Compat.check(error.isEmpty(), "commit of " + partition + ": " + error));
        }

        @Override
        public void close() {
            consumer.close();
        }
    }
}
