import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.FutureTask;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;
import org.apache.kafka.common.errors.InvalidSessionTimeoutException;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Consumer groups by the classic protocol. Each test has topics and groups of its own, so they may run at once. */
final class Groups {
    /** The least that a broker allows by default. */
    private static final Duration SESSION = Duration.ofSeconds(6);
    /** So long that no session ends within a test's deadline: what changes then, a member has asked for. */
    private static final String NEVER = "" + Compat.DEADLINE.multipliedBy(2).toMillis();

    private final Compat compat;
    private final Admin admin;

    Groups(Compat compat) {
        this.compat = compat;
        this.admin = compat.admin;
    }

    /** A member of the group and topic named, until it is killed. It prints how many partitions it has. */
    public static void main(String[] arguments) {
        try (Member member = new Member(arguments[1], settings(arguments[0]))) {
            for (int count = 0;; System.out.println(count)) {
                int before = count;
                eventually("a change", () -> member.owned.size() != before);
                count = member.owned().size();
            }
        }
    }

    // --- members come and go ---

    void sharesItsPartitions() throws Exception {
        String topic = compat.create("group-shared", 6, Map.of());
        var settings = settings(topic, "enable.auto.commit", "true", "session.timeout.ms", NEVER);
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        try (Member one = new Member(topic, settings); Member two = new Member(topic, settings);
             Member three = new Member(topic, settings)) {
            share(topic, 6, one, two, three);
            sent.addAll(produceToAll(topic, 6, 0, 50));
            receive(sent, one, two, three);
            two.leave();
            share(topic, 6, one, three);
            sent.addAll(produceToAll(topic, 6, 50, 100));
            receive(sent, one, two, three);
        }
    }

    void outlivesAKilledMember() throws Exception {
        String topic = compat.create("group-killed", 4, Map.of());
        Process killed = new ProcessBuilder(ProcessHandle.current().info().command().orElseThrow(), "-Xmx64m", "-cp",
            System.getProperty("java.class.path"), "Groups", topic, topic)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        try (Member stays = new Member(topic, settings(topic)); var counts = killed.inputReader()) {
            for (String count = ""; !count.equals("2"); count = counts.readLine()) {
                Compat.check(count != null, "the other process has ended");
            }
            eventually("2 partitions each", () -> stays.owned.size() == 2);
            killed.destroyForcibly().waitFor();
            long then = System.nanoTime();
            share(topic, 4, stays);
            Duration took = Duration.ofNanos(System.nanoTime() - then);
            Compat.check(took.compareTo(SESSION.dividedBy(2)) > 0, "its session has ended after " + took);
            receive(produceToAll(topic, 4, 0, 10), stays);
        } finally {
            killed.destroyForcibly();
        }
    }

    void keepsAStaticMembersPartitions() throws Exception {
        String topic = compat.create("group-static", 4, Map.of());
        var settings = settings(topic, "session.timeout.ms", NEVER, "enable.auto.commit", "true");
        Map<String, Object> one = new HashMap<>(settings);
        one.put("group.instance.id", "one");
        Map<String, Object> two = new HashMap<>(settings);
        two.put("group.instance.id", "two");
        Member first = new Member(topic, one);
        Member second = new Member(topic, two);
        try {
            share(topic, 4, first, second);
            // One of the two leads the group: both cases are met.
            for (int n = 0; n < 2; n++) {
                Member stays = n == 0 ? second : first;
                Member leaves = n == 0 ? first : second;
                var partitions = leaves.owned();
                var before = leaves.joined();
                int assignments = stays.assignments;
                // Who joined before the other had all partitions for a moment.
                var revoked = List.copyOf(stays.revoked);
                leaves.leave();
                var sent = produceToAll(topic, 4, n, n + 1);
                Member back = new Member(topic, n == 0 ? one : two);
                first = n == 0 ? back : first;
                second = n == 0 ? second : back;
                eventually("its partitions", () -> back.owned.equals(partitions));
                receive(sent.stream().filter(r -> partitions.contains(partition(r))).toList(), back);
                Compat.equal(before.generationId(), back.joined().generationId(), "generation");
                Compat.equal(before.generationId(), stays.joined().generationId(), "generation of the other");
                Compat.equal(before.groupInstanceId(), back.joined().groupInstanceId(), "instance id");
                Compat.check(!before.memberId().equals(back.joined().memberId()), "it has its old member id");
                Compat.equal(assignments, stays.assignments, "assignments of the other");
                Compat.equal(revoked, stays.revoked, "revoked from the other");
            }
        } finally {
            first.close();
            second.close();
        }
    }

    void fencesAStaticMember() throws Exception {
        String topic = compat.create("group-fenced", 2, Map.of());
        var settings = settings(topic, "group.instance.id", "one", "session.timeout.ms", NEVER);
        try (Member first = new Member(topic, settings)) {
            share(topic, 2, first);
            try (Member second = new Member(topic, settings)) {
                share(topic, 2, second);
                eventually("the end of the first", () -> first.error != null);
                Compat.equal(FencedInstanceIdException.class, first.error.getClass(), "error of the first");
                receive(produceToAll(topic, 2, 0, 5), second);
            }
        }
    }

    void rebalancesCooperatively() throws Exception {
        String topic = compat.create("group-cooperative", 6, Map.of());
        var settings = settings(topic, "partition.assignment.strategy", CooperativeStickyAssignor.class.getName(),
            "enable.auto.commit", "true", "session.timeout.ms", NEVER);
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        try (Member first = new Member(topic, settings)) {
            share(topic, 6, first);
            sent.addAll(produceToAll(topic, 6, 0, 20));
            receive(sent, first);
            try (Member second = new Member(topic, settings)) {
                share(topic, 6, first, second);
                Compat.equal(second.owned(), Set.copyOf(first.revoked), "revoked from the first");
                Compat.equal(3, first.revoked.size(), "partitions revoked from the first");
                try (Member third = new Member(topic, settings)) {
                    share(topic, 6, first, second, third);
                    Compat.equal(4, first.revoked.size(), "partitions revoked from the first in the end");
                    Compat.equal(1, second.revoked.size(), "partitions revoked from the second");
                    sent.addAll(produceToAll(topic, 6, 20, 40));
                    receive(sent, first, second, third);
                }
                share(topic, 6, first, second);
                Compat.equal(4, first.revoked.size(), "partitions revoked from the first by a member that leaves");
            }
            share(topic, 6, first);
            Compat.equal(4, first.revoked.size(), "partitions revoked from the first by the last that leaves");
        }
        ConsumerGroupDescription empty = describe(topic);
        Compat.equal(GroupState.EMPTY, empty.groupState(), "state");
    }

    void agreesOnAnAssignor() throws Exception {
        String topic = compat.create("group-assignors", 4, Map.of());
        Function<List<Class<?>>, Map<String, Object>> with = assignors -> settings(topic,
            "partition.assignment.strategy", assignors.stream().map(Class::getName).collect(Collectors.joining(",")));
        try (Member one = new Member(topic, with.apply(List.of(StickyAssignor.class, RoundRobinAssignor.class)));
             Member two = new Member(topic, with.apply(List.of(RoundRobinAssignor.class)))) {
            share(topic, 4, one, two);
            Compat.equal("roundrobin", describe(topic).partitionAssignor(), "assignor");
            try (Member three = new Member(topic, with.apply(List.of(RangeAssignor.class)))) {
                eventually("an error", () -> three.error != null);
                Compat.equal(InconsistentGroupProtocolException.class, three.error.getClass(), "error");
            }
            receive(produceToAll(topic, 4, 0, 5), one, two);
        }
        try (Member hasty = new Member(topic, settings(topic, "session.timeout.ms", "5999"))) {
            eventually("an error", () -> hasty.error != null);
            Compat.equal(InvalidSessionTimeoutException.class, hasty.error.getClass(), "error");
        }
    }

    void growsWithItsTopic() throws Exception {
        String topic = compat.create("group-growing", 2, Map.of());
        var settings = settings(topic, "metadata.max.age.ms", "300", "session.timeout.ms", NEVER);
        try (Member one = new Member(topic, settings); Member two = new Member(topic, settings)) {
            share(topic, 2, one, two);
            Compat.await(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(6))).all());
            share(topic, 6, one, two);
            receive(produceToAll(topic, 6, 0, 5), one, two);
        }
    }

    // --- offsets ---

    void goesOnWhereItCommitted() throws Exception {
        String topic = compat.create("group-commits", 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        var sent = Compat.messages(topic, 0, 100);
        Compat.produce(Compat.settings(), sent);
        OffsetAndMetadata thirty;
        try (var consumer = subscriber(topic, settings(topic))) {
            var records = Compat.poll(consumer, 30, 30);
            thirty = new OffsetAndMetadata(30, records.get(29).leaderEpoch(), "thirty \u00e9\u4e2d");
            consumer.commitSync(Map.of(partition, thirty));
            Compat.comesBack(sent.subList(30, 100), Compat.poll(consumer, 70));
        }
        try (var consumer = subscriber(topic, settings(topic))) {
            Compat.comesBack(sent.subList(30, 100), Compat.poll(consumer, 70));
            Compat.equal(Map.of(partition, thirty), consumer.committed(Set.of(partition)), "committed");
            CompletableFuture<Map<TopicPartition, OffsetAndMetadata>> done = new CompletableFuture<>();
            consumer.seek(partition, 60);
            consumer.commitAsync((offsets, error) -> Compat.check(done.complete(offsets), "answered twice"));
            Compat.until("the answer", () -> {
                consumer.poll(Duration.ofMillis(50));
                return done.isDone();
            });
            Compat.equal(60L, done.get().get(partition).offset(), "offset in the answer");
        }
        // A consumer that assigns itself uses the offsets of a group without being a member.
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings(topic))) {
            consumer.assign(List.of(partition));
            Compat.comesBack(sent.subList(60, 100), Compat.poll(consumer, 40));
            consumer.commitSync();
            Compat.equal(100L, consumer.committed(Set.of(partition)).get(partition).offset(), "committed at last");
        }
        Compat.equal(Map.of(partition, 100L), offsets(topic), "committed as the admin sees it");

        String large = "x".repeat(4097);
        Compat.fails(OffsetMetadataTooLarge.class, () -> alter(topic, partition, new OffsetAndMetadata(1, large)));
        alter(topic, partition, new OffsetAndMetadata(1, large.substring(1)));
        Compat.equal(large.substring(1), committed(topic).get(partition).metadata(), "metadata of 4096");
    }

    void commitsAutomatically() throws Exception {
        String topic = compat.create("group-automatic", 2, Map.of());
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        var settings = settings(topic, "enable.auto.commit", "true", "auto.commit.interval.ms", "100");
        var sent = new ArrayList<>(produceToAll(topic, 2, 0, 100));
        try (Member member = new Member(topic, settings)) {
            receive(sent, member);
            Compat.until("a commit of all", () -> offsets(topic).equals(Map.of(zero, 100L, one, 100L)));
        }
        sent.addAll(produceToAll(topic, 2, 100, 120));
        var few = settings(topic, "enable.auto.commit", "true", "auto.commit.interval.ms", NEVER,
            "max.poll.records", "5");
        List<ConsumerRecord<byte[], byte[]>> received = new ArrayList<>();
        try (var consumer = subscriber(topic, few)) {
            received.addAll(Compat.poll(consumer, 5));
        }
        // The close has committed.
        try (Member member = new Member(topic, settings)) {
            eventually("the rest", () -> member.received.size() >= 35);
            Compat.equal(35, member.received.size(), "records after the first five");
            received.addAll(member.received);
        }
        comesBackOnce(sent.stream().skip(200).toList(), received);
    }

    void resetsOffsets() throws Exception {
        String topic = compat.create("group-resets", 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        var sent = Compat.messages(topic, 0, 25);
        Compat.produce(Compat.settings(), sent.subList(0, 20));
        Compat.await(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(5))).all());

        try (var consumer = subscriber(topic, settings(topic + "-a", "auto.offset.reset", "earliest"))) {
            Compat.comesBack(sent.subList(5, 20), Compat.poll(consumer, 15));
        }
        try (var consumer = subscriber(topic, settings(topic + "-b", "auto.offset.reset", "by_duration:P1D"))) {
            Compat.comesBack(sent.subList(5, 20), Compat.poll(consumer, 15));
        }
        try (var consumer = subscriber(topic, settings(topic + "-c", "auto.offset.reset", "none"))) {
            var error = Compat.fails(NoOffsetForPartitionException.class, () -> Compat.poll(consumer, 1));
            Compat.equal(Set.of(partition), error.partitions(), "partitions without an offset");
        }
        for (long outside : List.of(2L, 21L, 1_000_000L)) {
            String group = topic + "-" + outside;
            alter(group, partition, new OffsetAndMetadata(outside));
            try (var consumer = subscriber(topic, settings(group, "auto.offset.reset", "none"))) {
                var error = Compat.fails(OffsetOutOfRangeException.class, () -> Compat.poll(consumer, 1));
                Compat.equal(Map.of(partition, outside), error.offsetOutOfRangePartitions(), "offsets out of range");
            }
            try (var consumer = subscriber(topic, settings(group, "auto.offset.reset", "earliest"))) {
                Compat.comesBack(sent.subList(5, 20), Compat.poll(consumer, 15));
            }
        }
        // Last, as it produces: each of these two starts at the end and gets what comes then.
        String beyond = topic + "-beyond";
        alter(beyond, partition, new OffsetAndMetadata(1_000_000));
        try (var fresh = subscriber(topic, settings(topic + "-d", "auto.offset.reset", "latest"));
             var outside = subscriber(topic, settings(beyond, "auto.offset.reset", "latest"))) {
            for (var consumer : List.of(fresh, outside)) {
                Compat.until("the reset to the end", () -> {
                    Compat.equal(0, consumer.poll(Duration.ofMillis(50)).count(), "records before the end");
                    return consumer.assignment().contains(partition) && consumer.position(partition) == 20;
                });
            }
            Compat.produce(Compat.settings(), sent.subList(20, 25));
            for (var consumer : List.of(fresh, outside)) {
                Compat.comesBack(sent.subList(20, 25), Compat.poll(consumer, 5));
            }
        }
    }

    // --- what an admin sees and does ---

    void tellsOfALiveGroup() throws Exception {
        String topic = compat.create("group-live", 3, Map.of());
        var partitions = partitions(topic, 3);
        var settings = settings(topic, "group.instance.id", "one", "client.id", "client-one",
            "session.timeout.ms", NEVER);
        var sent = produceToAll(topic, 3, 0, 10);
        try (Member member = new Member(topic, settings)) {
            receive(sent, member);
            ConsumerGroupDescription group = describe(topic);
            Compat.equal(GroupState.STABLE, group.groupState(), "state");
            Compat.equal(GroupType.CLASSIC, group.type(), "type");
            Compat.equal("range", group.partitionAssignor(), "assignor");
            Compat.equal(Compat.await(admin.describeCluster().controller()), group.coordinator(), "coordinator");
            Compat.equal(1, group.members().size(), "members");
            var described = group.members().iterator().next();
            Compat.equal(member.joined().memberId(), described.consumerId(), "member id");
            Compat.check(described.consumerId().startsWith("one-"), "member id " + described.consumerId());
            Compat.equal(Optional.of("one"), described.groupInstanceId(), "instance id");
            Compat.equal("client-one", described.clientId(), "client id");
            Compat.equal("/127.0.0.1", described.host(), "host");
            Compat.equal(partitions, described.assignment().topicPartitions(), "assignment");

            var listed = listed(topic, ListGroupsOptions.forConsumerGroups()).orElseThrow();
            Compat.equal(Optional.of(GroupState.STABLE), listed.groupState(), "state in the list");
            Compat.equal(Optional.of(GroupType.CLASSIC), listed.type(), "type in the list");
            Compat.equal("consumer", listed.protocol(), "protocol in the list");
            Compat.check(listed(topic, new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE))).isPresent(),
                "it is not listed among the stable");
            Compat.check(listed(topic, new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).isEmpty(),
                "it is listed among the empty");
            Compat.check(listed(topic, new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))).isEmpty(),
                "it is listed among those of the newer protocol");

            Compat.fails(GroupNotEmptyException.class,
                () -> Compat.await(admin.deleteConsumerGroups(List.of(topic)).all()));
            Compat.fails(GroupSubscribedToTopicException.class,
                () -> Compat.await(admin.deleteConsumerGroupOffsets(topic, partitions).all()));
            TopicPartition zero = new TopicPartition(topic, 0);
            Compat.fails(UnknownMemberIdException.class, () -> alter(topic, zero, new OffsetAndMetadata(1)));
            Compat.equal(Map.of(), committed(topic), "committed");
        }
        // A static member that closes stays in the group until it is taken out of it.
        Compat.equal(GroupState.STABLE, describe(topic).groupState(), "state after the close");
        var removal = new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("one")));
        Compat.await(admin.removeMembersFromConsumerGroup(topic, removal).all());
        Compat.equal(GroupState.EMPTY, describe(topic).groupState(), "state after the removal");
        Compat.equal(0, describe(topic).members().size(), "members after the removal");
        Compat.fails(UnknownMemberIdException.class,
            () -> Compat.await(admin.removeMembersFromConsumerGroup(topic, removal).all()));
    }

    void tellsLag() throws Exception {
        String topic = compat.create("group-lag", 3, Map.of());
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        TopicPartition two = new TopicPartition(topic, 2);
        produceToAll(topic, 3, 0, 10);
        try (var consumer = subscriber(topic, settings(topic))) {
            Compat.poll(consumer, 30);
            consumer.seek(one, 4);
            consumer.commitSync(Map.of(zero, new OffsetAndMetadata(10), one, new OffsetAndMetadata(4)));
            consumer.pause(List.of(zero, one, two));
            consumer.poll(Duration.ZERO);
            Compat.equal(0L, consumer.currentLag(zero).orElseThrow(), "lag of a partition read to its end");
            Compat.equal(6L, consumer.currentLag(one).orElseThrow(), "lag of a partition that went back");
            var ends = Compat.await(admin.listOffsets(partitions(topic, 3).stream()
                .collect(Collectors.toMap(partition -> partition, partition -> OffsetSpec.latest()))).all());
            var offsets = committed(topic);
            Compat.equal(Set.of(zero, one), offsets.keySet(), "partitions with an offset");
            Compat.equal(0L, ends.get(zero).offset() - offsets.get(zero).offset(), "lag of one as the admin sees it");
            Compat.equal(6L, ends.get(one).offset() - offsets.get(one).offset(), "lag of the other");
        }
        var asked = new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(one, two));
        var found = Compat.await(
            admin.listConsumerGroupOffsets(Map.of(topic, asked)).partitionsToOffsetAndMetadata(topic));
        Compat.equal(4L, found.get(one).offset(), "offset of one asked for");
        Compat.check(found.containsKey(two) && found.get(two) == null, "no answer for one without an offset: " + found);
    }

    void altersAnEmptyGroup() throws Exception {
        String topic = compat.create("group-altered", 3, Map.of());
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        TopicPartition absent = new TopicPartition(compat.prefix + "absent", 0);
        var sent = produceToAll(topic, 3, 0, 10);
        Compat.fails(GroupIdNotFoundException.class, () -> describe(topic));
        Compat.fails(GroupIdNotFoundException.class,
            () -> Compat.await(admin.deleteConsumerGroups(List.of(topic)).all()));
        Compat.fails(GroupIdNotFoundException.class,
            () -> Compat.await(admin.deleteConsumerGroupOffsets(topic, Set.of(zero)).all()));
        Compat.equal(Map.of(), committed(topic), "offsets of an unknown group");
        Compat.fails(UnknownTopicOrPartitionException.class, () -> alter(topic, absent, new OffsetAndMetadata(1)));

        alter(topic, zero, new OffsetAndMetadata(3, Optional.of(0), "three"));
        alter(topic, one, new OffsetAndMetadata(7));
        Compat.equal(Map.of(zero, new OffsetAndMetadata(3, Optional.of(0), "three"), one, new OffsetAndMetadata(7)),
            committed(topic), "committed");
        Compat.equal(GroupState.EMPTY, describe(topic).groupState(), "state");
        Compat.check(describe(topic).isSimpleConsumerGroup(), "a group that never had members has a protocol");
        try (var consumer = subscriber(topic, settings(topic))) {
            comesBackOnce(sent.stream().filter(r -> offset(r) >= List.of(3, 7, 0).get(r.partition())).toList(),
                Compat.poll(consumer, 20));
        }
        Compat.await(admin.deleteConsumerGroupOffsets(topic, Set.of(zero)).all());
        Compat.equal(Map.of(one, 7L), offsets(topic), "committed after a deletion");
        Compat.fails(UnknownTopicOrPartitionException.class,
            () -> Compat.await(admin.deleteConsumerGroupOffsets(topic, Set.of(absent)).all()));

        Compat.await(admin.deleteConsumerGroups(List.of(topic)).all());
        Compat.check(listed(topic, new ListGroupsOptions()).isEmpty(), "a deleted group is listed");
        Compat.fails(GroupIdNotFoundException.class, () -> describe(topic));
        Compat.equal(Map.of(), committed(topic), "offsets of a deleted group");

        alter(topic, zero, new OffsetAndMetadata(5));
        Compat.await(admin.deleteTopics(List.of(topic)).all());
        Compat.until("the end of a deleted topic's offsets", () -> committed(topic).isEmpty());
    }

    // --- a crash ---

    void survivesAKill() throws Exception {
        String topic = compat.create("group-crash", 4, Map.of());
        TopicPartition zero = new TopicPartition(topic, 0);
        String idle = topic + "-idle";
        var sent = new ArrayList<>(produceToAll(topic, 4, 0, 50));
        var three = new OffsetAndMetadata(3, Optional.of(0), "three \u00e9");
        alter(idle, zero, three);
        alter(topic + "-deleted", zero, three);
        Compat.await(admin.deleteConsumerGroups(List.of(topic + "-deleted")).all());
        // What changes in the group, the broker has changed: no session ends while it restarts.
        var settings = settings(topic, "enable.auto.commit", "true", "auto.commit.interval.ms", "100",
            "session.timeout.ms", NEVER);
        try (Member one = new Member(topic, settings); Member two = new Member(topic, settings)) {
            share(topic, 4, one, two);
            receive(sent, one, two);
            var all = partitions(topic, 4).stream().collect(Collectors.toMap(p -> p, p -> 50L));
            Compat.until("a commit of all", () -> offsets(topic).equals(all));
            var before = List.of(one.joined(), two.joined());

            Compat.restartBroker();

            Compat.equal(Map.of(zero, three), committed(idle), "committed by the idle group");
            Compat.equal(all, offsets(topic), "committed by the live group");
            Compat.check(listed(topic + "-deleted", new ListGroupsOptions()).isEmpty(), "a deleted group is back");
            sent.addAll(produceToAll(topic, 4, 50, 60));
            receive(sent, one, two);
            all.replaceAll((partition, offset) -> 60L);
            Compat.until("a commit after the restart", () -> offsets(topic).equals(all));
            // A broker that had forgotten them would have given them new member ids.
            for (int n = 0; n < 2; n++) {
                ConsumerGroupMetadata after = (n == 0 ? one : two).joined();
                Compat.equal(before.get(n).memberId(), after.memberId(), "member id");
                Compat.check(after.generationId() >= before.get(n).generationId(), "the generation went back");
            }
            Compat.equal(Set.of(before.get(0).memberId(), before.get(1).memberId()), describe(topic).members().stream()
                .map(member -> member.consumerId()).collect(Collectors.toSet()), "members");
        }
        try (var consumer = subscriber(topic, settings(idle))) {
            var expected = sent.stream().filter(r -> r.partition() != 0 || offset(r) >= 3).toList();
            comesBackOnce(expected, Compat.poll(consumer, expected.size()));
        }
    }

    void rebalancesThroughAKill() throws Exception {
        String topic = compat.create("group-crash-join", 6, Map.of());
        var settings = settings(topic, "enable.auto.commit", "true", "auto.commit.interval.ms", "100");
        try (Member one = new Member(topic, settings); Member two = new Member(topic, settings)) {
            share(topic, 6, one, two);
            var restart = new FutureTask<Void>(() -> {
                Compat.restartBroker();
                return null;
            });
            new Thread(restart).start();
            try (Member three = new Member(topic, settings)) {
                Compat.await(restart);
                share(topic, 6, one, two, three);
                receive(produceToAll(topic, 6, 0, 50), one, two, three);
                Compat.equal(3, describe(topic).members().size(), "members");
            }
            share(topic, 6, one, two);
        }
    }

    // --- what tests are made of ---

    private static Map<String, Object> settings(String group, String... more) {
        var settings = Compat.settings("group.protocol", "classic", "group.id", group, "auto.offset.reset", "earliest",
            "session.timeout.ms", "" + SESSION.toMillis(), "heartbeat.interval.ms", "500");
        settings.putAll(Compat.settings(more));
        return settings;
    }

    private static KafkaConsumer<byte[], byte[]> subscriber(String topic, Map<String, Object> settings) {
        var consumer = new KafkaConsumer<byte[], byte[]>(settings);
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    /** A consumer of a group, polled in a thread of its own until it is closed or ends in an error. */
    private static final class Member implements AutoCloseable, ConsumerRebalanceListener {
        /** Guards what all members tell of themselves; notified when that may have changed. */
        static final Object CHANGE = new Object();

        final Set<TopicPartition> owned = new HashSet<>();
        final List<TopicPartition> revoked = new ArrayList<>();
        final List<ConsumerRecord<byte[], byte[]>> received = new ArrayList<>();
        int assignments;
        Exception error;
        private ConsumerGroupMetadata joined;
        private boolean leaving;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final Thread thread = new Thread(this::run);

        Member(String topic, Map<String, Object> settings) {
            consumer = new KafkaConsumer<>(settings);
            consumer.subscribe(List.of(topic), this);
            thread.start();
        }

        private void run() {
            try (consumer) {
                while (!leaving()) {
                    var records = consumer.poll(Duration.ofMillis(100));
                    synchronized (CHANGE) {
                        records.forEach(received::add);
                        joined = consumer.groupMetadata();
                        CHANGE.notifyAll();
                    }
                }
            } catch (Exception thrown) {
                synchronized (CHANGE) {
                    error = thrown;
                    CHANGE.notifyAll();
                }
            }
        }

        private boolean leaving() {
            synchronized (CHANGE) {
                return leaving;
            }
        }

        Set<TopicPartition> owned() {
            synchronized (CHANGE) {
                return Set.copyOf(owned);
            }
        }

        /** Where it is in its group, as of its last assignment or poll. */
        ConsumerGroupMetadata joined() {
            synchronized (CHANGE) {
                return joined;
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            synchronized (CHANGE) {
                owned.addAll(partitions);
                assignments++;
                joined = consumer.groupMetadata();
            }
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            synchronized (CHANGE) {
                owned.removeAll(partitions);
                if (!leaving) {
                    revoked.addAll(partitions);
                }
            }
        }

        @Override
        public void close() {
            leave();
        }

        void leave() {
            synchronized (CHANGE) {
                leaving = true;
            }
            try {
                thread.join(Compat.DEADLINE.toMillis());
            } catch (InterruptedException interrupted) {
                throw new AssertionError(interrupted);
            }
            Compat.check(!thread.isAlive(), "a member does not leave in time");
        }
    }

    /** Waits until it is so, looking again whenever a member has polled. */
    private static void eventually(String what, BooleanSupplier condition) {
        long deadline = System.nanoTime() + Compat.DEADLINE.toNanos();
        synchronized (Member.CHANGE) {
            while (!condition.getAsBoolean()) {
                long left = (deadline - System.nanoTime()) / 1_000_000;
                Compat.check(left > 0, what + " is not seen in time");
                try {
                    Member.CHANGE.wait(left);
                } catch (InterruptedException interrupted) {
                    throw new AssertionError(interrupted);
                }
            }
        }
    }

    /** Waits until the members own all partitions of the topic, each partition once, and each member its fair share. */
    private static void share(String topic, int partitions, Member... members) {
        eventually("the sharing of " + topic, () -> {
            List<TopicPartition> owned = Stream.of(members).flatMap(member -> member.owned.stream()).toList();
            int least = partitions / members.length;
            return owned.size() == partitions && Set.copyOf(owned).equals(partitions(topic, partitions))
                && Stream.of(members).allMatch(m -> m.owned.size() == least || m.owned.size() == least + 1);
        });
    }

    /** Waits until the members have as many records as were sent, which are then those that were sent, each once. */
    private static void receive(List<ProducerRecord<byte[], byte[]>> sent, Member... members) {
        eventually(sent.size() + " records", () -> {
            for (Member member : members) {
                Compat.check(member.error == null, "a member has ended: " + member.error);
            }
            return Stream.of(members).mapToInt(member -> member.received.size()).sum() >= sent.size();
        });
        synchronized (Member.CHANGE) {
            comesBackOnce(sent, Stream.of(members).flatMap(member -> member.received.stream()).toList());
        }
    }

    /** In any order. */
    private static void comesBackOnce(
        List<ProducerRecord<byte[], byte[]>> sent, List<ConsumerRecord<byte[], byte[]>> received
    ) {
        Compat.comesBack(
            sent.stream().sorted(Comparator.<ProducerRecord<?, ?>>comparingInt(r -> r.partition())
                .thenComparingLong(r -> r.timestamp())).toList(),
            received.stream().sorted(Comparator.<ConsumerRecord<?, ?>>comparingInt(r -> r.partition())
                .thenComparingLong(r -> r.offset())).toList());
    }

    /** Sends the messages of these numbers to each partition. In the topics of these tests they are the offsets too. */
    private static List<ProducerRecord<byte[], byte[]>> produceToAll(String topic, int partitions, int from, int to)
        throws Exception {
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            sent.addAll(Compat.messages(topic, partition, to).subList(from, to));
        }
        Compat.produce(Compat.settings(), sent);
        return sent;
    }

    private static long offset(ProducerRecord<?, ?> sent) {
        return (sent.timestamp() - Compat.START_MS) / 10;
    }

    private static TopicPartition partition(ProducerRecord<?, ?> sent) {
        return new TopicPartition(sent.topic(), sent.partition());
    }

    private static Set<TopicPartition> partitions(String topic, int count) {
        return IntStream.range(0, count).mapToObj(n -> new TopicPartition(topic, n)).collect(Collectors.toSet());
    }

    private ConsumerGroupDescription describe(String group) {
        return Compat.await(admin.describeConsumerGroups(List.of(group)).describedGroups().get(group));
    }

    private Optional<GroupListing> listed(String group, ListGroupsOptions options) {
        return Compat.await(admin.listGroups(options).all()).stream().filter(g -> g.groupId().equals(group)).findAny();
    }

    private Map<TopicPartition, OffsetAndMetadata> committed(String group) {
        return Compat.await(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    private Void alter(String group, TopicPartition partition, OffsetAndMetadata offset) {
        return Compat.await(
            admin.alterConsumerGroupOffsets(group, Map.of(partition, offset)).partitionResult(partition));
    }

    private Map<TopicPartition, Long> offsets(String group) {
        return committed(group).entrySet().stream()
            .collect(Collectors.toMap(e -> e.getKey(), e -> e.getValue().offset()));
    }
}
