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
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;

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
