import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import kafka.admin.ConfigCommand;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.tools.BrokerApiVersionsCommand;
import org.apache.kafka.tools.ConsoleProducer;
import org.apache.kafka.tools.ConsumerPerformance;
import org.apache.kafka.tools.DeleteRecordsCommand;
import org.apache.kafka.tools.DumpLogSegments;
import org.apache.kafka.tools.GetOffsetShell;
import org.apache.kafka.tools.GroupsCommand;
import org.apache.kafka.tools.ProducerPerformance;
import org.apache.kafka.tools.TopicCommand;
import org.apache.kafka.tools.VerifiableConsumer;
import org.apache.kafka.tools.VerifiableProducer;
import org.apache.kafka.tools.consumer.ConsoleConsumer;
import org.apache.kafka.tools.consumer.ConsoleShareConsumer;
import org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter;
import org.apache.kafka.tools.consumer.OffsetsMessageFormatter;
import org.apache.kafka.tools.consumer.group.ConsumerGroupCommand;
import org.apache.kafka.tools.consumer.group.ShareGroupCommand;

/**
 * Apache Kafka's command-line tools against the broker at BOOTSTRAP. They are called in this process, one at a time,
 * with their input, output and exit caught: a JVM for each call would take a second of its own.
 */
public final class Tools {
    private static final String BOOTSTRAP = Objects.requireNonNull(System.getenv("BOOTSTRAP"), "BOOTSTRAP is not set");
    /** Command that takes `restart` (SIGKILL, a start on the same port and data); null if the broker is not ours. */
    private static final String BROKER = System.getenv("BROKER");
    private static final Path WORK = Path.of(Objects.requireNonNull(System.getenv("WORK"), "WORK is not set"));
    private static final Duration DEADLINE = Duration.ofSeconds(60);
    /** The time of the first of the records that are an hour apart. */
    private static final Instant START = Instant.now().truncatedTo(ChronoUnit.SECONDS).minus(Duration.ofHours(20));

    private final String prefix = "tools-" + Long.toString(System.nanoTime(), 36) + "-";
    private int failed;

    public static void main(String[] arguments) {
        Tools tools = new Tools();
        tools.test("kafka-broker-api-versions finds versions that it can use", tools::tellsApiVersions);
        tools.test("kafka-topics creates, lists, describes, grows and deletes a topic", tools::managesTopics);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            tools.test("kafka-console-consumer reads in order what kafka-console-producer wrote with " + codec,
                () -> tools.writesAndReads(codec));
        }
        tools.test("the console tools carry headers, nulls and times", tools::carriesAllOfARecord);
        tools.test("kafka-console-consumer goes on where its group was, and leaves it on SIGTERM",
            tools::consumesInAGroup);
        tools.test("kafka-verifiable-producer and -consumer agree on each record", tools::verifies);
        tools.test("the performance tools count what they sent and received", tools::measures);
        tools.test("kafka-get-offsets finds offsets by every kind of time", tools::getsOffsets);
        tools.test("kafka-delete-records moves the start of a partition", tools::deletesRecords);
        tools.test("kafka-configs alters and describes topics and describes the broker", tools::configures);
        tools.test("kafka-consumer-groups describes a live group in all forms", tools::describesALiveGroup);
        tools.test("kafka-consumer-groups lists groups by state and type, kafka-groups too", tools::listsGroups);
        tools.test("kafka-consumer-groups resets offsets in all scenarios", tools::resetsOffsets);
        tools.test("kafka-consumer-groups deletes offsets and groups, and refuses where it must", tools::deletesGroups);
        tools.test("kafka-share-groups tells of a group that kafka-console-share-consumer was in, resets and deletes it",
            tools::managesShareGroups);
        tools.test("the formatters for __consumer_offsets read its records", tools::readsTheOffsetsTopic);
        if (System.getenv("BROKER_DIR") != null) {
            tools.test("kafka-dump-log reads the segments of the broker", tools::dumpsSegments);
        }
        if (BROKER != null) {
            tools.test("after SIGKILL the tools find records, offsets and configs, and go on", tools::survivesAKill);
        }
        System.exit(tools.failed == 0 ? 0 : 1);
    }

    // --- topics and records ---

    private void tellsApiVersions() {
        String said = BROKER_API_VERSIONS.succeeds("").out;
        check(said.startsWith(BOOTSTRAP + " (id: "), "it begins with " + said.lines().findFirst());
        for (String api : List.of("Produce(0)", "Fetch(1)", "Metadata(3)", "OffsetCommit(8)", "JoinGroup(11)",
            "ListGroups(16)", "CreateTopics(19)", "OffsetDelete(47)")) {
            matches(Pattern.quote(api) + ": (\\d+|\\d+ to \\d+) \\[usable: \\d+]", said);
        }
    }

    private void managesTopics() {
        String topic = prefix + "managed";
        String create = "--create --topic " + topic + " --partitions 3 --config retention.ms=7200000"
            + " --config cleanup.policy=compact,delete";
        equal("Created topic " + topic + ".", TOPICS.succeeds(create).out.strip(), "answer");
        contains("Topic '" + topic + "' already exists", TOPICS.fails(create).out);
        TOPICS.succeeds(create + " --if-not-exists");
        contains("Error while executing topic command",
            TOPICS.fails("--create --topic " + topic + "-replicated --replication-factor 3").out);
        check(TOPICS.succeeds("--list").out.lines().toList().contains(topic), "it is not listed");

        String described = TOPICS.succeeds("--describe --topic " + topic).out;
        matches("^Topic: " + topic + "\tTopicId: \\S{22}\tPartitionCount: 3\tReplicationFactor: 1\tConfigs: ",
            described);
        contains("retention.ms=7200000", described);
        for (int partition = 0; partition < 3; partition++) {
            matches("\tTopic: " + topic + "\tPartition: " + partition
                + "\tLeader: (?<node>\\d+)\tReplicas: \\k<node>\tIsr: \\k<node>\t", described);
        }
        equal("", TOPICS.succeeds("--describe --under-replicated-partitions").out, "under-replicated partitions");
        equal("", TOPICS.succeeds("--describe --unavailable-partitions").out, "unavailable partitions");
        contains(topic + "\t", TOPICS.succeeds("--describe --topics-with-overrides").out);

        TOPICS.succeeds("--alter --topic " + topic + " --partitions 5");
        contains("\tPartitionCount: 5\t", TOPICS.succeeds("--describe --topic " + topic).out);
        contains("Error while executing topic command",
            TOPICS.fails("--alter --topic " + topic + " --partitions 2").out);
        TOPICS.succeeds("--delete --topic " + topic);
        check(!TOPICS.succeeds("--list").out.lines().toList().contains(topic), "a deleted topic is listed");
        contains("does not exist as expected", TOPICS.fails("--describe --topic " + topic).out);
    }

    private void writesAndReads(String codec) {
        String topic = create("codec-" + codec, 2);
        var lines = IntStream.range(0, 100).mapToObj(n -> "key-" + n + "\tvalue " + n + " \u00e9\u4e2d").toList();
        CONSOLE_PRODUCER.reading(lines)
            .succeeds("--topic " + topic + " --compression-codec " + codec + " --reader-property parse.key=true");
        var ends = offsets(topic, "latest");
        equal(100L, ends.values().stream().mapToLong(end -> end).sum(), "records");
        List<String> all = new ArrayList<>();
        for (int partition : List.of(0, 1)) {
            var read = CONSOLE_CONSUMER.succeeds("--topic " + topic + " --partition " + partition
                + " --offset 0 --max-messages " + ends.get(partition) + printing("key")).out.lines().toList();
            equal(lines.stream().filter(read::contains).toList(), read, "lines of partition " + partition);
            all.addAll(read);
        }
        equal(lines.stream().sorted().toList(), all.stream().sorted().toList(), "lines of both partitions");
        int half = (int) (ends.get(0) / 2);
        var line = CONSOLE_CONSUMER.succeeds(
            "--topic " + topic + " --partition 0 --max-messages 1 --offset " + half + printing("offset", "key"));
        equal("Offset:" + half + "\t" + all.get(half), line.out.strip(), "half-way line");
    }

    private void carriesAllOfARecord() {
        String topic = create("whole", 1);
        long before = System.currentTimeMillis();
        CONSOLE_PRODUCER.reading(List.of("one:1,two:2\tkey\tvalue", "nothing:NULL\tNULL\tNULL", "NULL\tlast\t"))
            .succeeds("--topic " + topic + " --sync --timeout 0 --reader-property parse.key=true"
                + " --reader-property parse.headers=true --reader-property null.marker=NULL");
        long after = System.currentTimeMillis();
        var read = CONSOLE_CONSUMER.succeeds("--topic " + topic + " --from-beginning --max-messages 3"
            + " --isolation-level read_committed --formatter-property null.literal=nil"
            + printing("timestamp", "partition", "offset", "headers", "key")).out.lines().toList();
        equal(List.of(
            "Partition:0\tOffset:0\tone:1,two:2\tkey\tvalue",
            "Partition:0\tOffset:1\tnothing:nil\tnil\tnil",
            "Partition:0\tOffset:2\tNO_HEADERS\tlast\t"
        ), read.stream().map(line -> line.substring(line.indexOf('\t') + 1)).toList(), "lines");
        for (String line : read) {
            matches("^CreateTime:\\d+\t", line);
            long time = Long.parseLong(line.substring("CreateTime:".length(), line.indexOf('\t')));
            check(before <= time && time <= after, "time " + time + " not in " + before + " to " + after);
        }
    }

    private void verifies() throws Exception {
        String topic = create("verified", 3);
        // It prints its summary when its process ends, and the consumer waits for records without a limit.
        try (Child producer = new Child(VerifiableProducer.class,
            "--topic " + topic + " --max-messages 300 --repeating-keys 10 --value-prefix 7")) {
            List<String> said = producer.end(0);
            equal(300L, said.stream().filter(line -> line.contains("\"producer_send_success\"")).count(), "successes");
            contains("\"sent\":300,\"acked\":300", said.get(said.size() - 1));
        }
        String group = topic + "-group";
        try (Child consumer = new Child(VerifiableConsumer.class,
            "--topic " + topic + " --group-id " + group + " --max-messages 300 --verbose")) {
            String said = String.join("\n", consumer.end(0));
            var values = Pattern.compile("\"value\":\"7\\.(\\d+)\"").matcher(said).results()
                .map(found -> Integer.valueOf(found.group(1))).sorted().toList();
            equal(IntStream.range(0, 300).boxed().toList(), values, "values");
            check(!said.contains("\"success\":false"), "a commit failed");
        }
        equal(offsets(topic, "latest"), committed(group), "committed");
    }

    private void measures() {
        String topic = create("measured", 2);
        matches("(?m)^3000 records sent, ", PRODUCER_PERFORMANCE
            .succeeds("--topic " + topic + " --num-records 3000 --record-size 100 --throughput -1").out);
        equal(3000L, offsets(topic, "latest").values().stream().mapToLong(end -> end).sum(), "records");
        var columns = CONSUMER_PERFORMANCE
            .succeeds("--topic " + topic + " --num-records 3000 --hide-header --timeout " + DEADLINE.toMillis())
            .out.strip().split(", ");
        equal("3000", columns[4], "records received");
        equal("0.2861", columns[2], "megabytes received");
    }

    private void getsOffsets() {
        String topic = createWithRecords("offsets", 2);
        for (String latest : List.of("-1", "latest")) {
            equal(Map.of(0, 10L, 1, 10L), offsets(topic, latest), "latest");
        }
        for (String earliest : List.of("-2", "earliest", "earliest-local")) {
            equal(Map.of(0, 0L, 1, 0L), offsets(topic, earliest), "earliest");
        }
        equal(Map.of(0, 9L, 1, 9L), offsets(topic, "max-timestamp"), "offsets of the greatest time");
        equal(Map.of(0, 5L, 1, 5L), offsets(topic, "" + hour(5)), "offsets by a time");
        equal(Map.of(0, 6L, 1, 6L), offsets(topic, "" + (hour(5) + 1)), "offsets by the next time");
        equal(topic + ":1:10", GET_OFFSETS.succeeds("--topic-partitions " + topic + ":1").out.strip(), "one partition");
        contains("Could not match any topic-partitions", GET_OFFSETS.fails("--topic " + prefix + "absent").err);
    }

    private void deletesRecords() throws Exception {
        String topic = createWithRecords("deleted", 2);
        for (int offset : List.of(4, 99)) {
            Path file = Files.writeString(WORK.resolve("delete.json"), """
                {"version": 1, "partitions": [
                  {"topic": "%s", "partition": 0, "offset": %d}, {"topic": "%1$s", "partition": 1, "offset": -1}]}
                """.formatted(topic, offset));
            String said = DELETE_RECORDS.succeeds("--offset-json-file " + file).out;
            contains("partition: " + topic + "-0\t" + (offset == 4 ? "low_watermark: 4" : "error: "), said);
            contains("partition: " + topic + "-1\tlow_watermark: 10", said);
        }
        equal(Map.of(0, 4L, 1, 10L), offsets(topic, "earliest"), "earliest");
        equal("value 4",
            CONSOLE_CONSUMER.succeeds("--topic " + topic + " --from-beginning --max-messages 1").out.strip(),
            "first value");
    }

    private void configures() {
        String topic = create("configured", 1);
        String entity = "--entity-type topics --entity-name " + topic;
        equal("Completed updating config for topic " + topic + ".",
            CONFIGS.succeeds(entity + " --alter --add-config retention.ms=3600000,cleanup.policy=[compact,delete]")
                .out.strip(), "answer");
        String described = CONFIGS.succeeds(entity + " --describe").out;
        contains("Dynamic configs for topic " + topic + " are:", described);
        matches("(?m)^  retention.ms=3600000 sensitive=false synonyms=\\{DYNAMIC_TOPIC_CONFIG:retention.ms=3600000",
            described);
        contains("  cleanup.policy=compact,delete ", described);
        CONFIGS.succeeds(entity + " --alter --delete-config retention.ms");
        described = CONFIGS.succeeds(entity + " --describe").out;
        check(!described.contains("retention.ms"), "a deleted config is described");
        contains("  cleanup.policy=compact,delete ", described);
        matches("(?m)^  retention.ms=604800000 sensitive=false ",
            CONFIGS.succeeds(entity + " --describe --all").out);
        contains("retention.ms", CONFIGS.fails(entity + " --alter --add-config retention.ms=soon").err);
        contains("no.such.config", CONFIGS.fails(entity + " --alter --add-config no.such.config=1").err);

        String node = firstGroup("\\(id: (\\d+)", BROKER_API_VERSIONS.succeeds("").out);
        matches("(?m)^  auto.create.topics.enable=false ",
            CONFIGS.succeeds("--entity-type brokers --entity-name " + node + " --describe --all").out);
    }

    // --- groups ---

    private void consumesInAGroup() throws Exception {
        String topic = createWithRecords("grouped", 1);
        String group = topic + "-group";
        String read = "--topic " + topic + " --group " + group + " --from-beginning --max-messages";
        var lines = IntStream.range(0, 10).mapToObj(n -> "value " + n).toList();
        equal(lines.subList(0, 4), CONSOLE_CONSUMER.succeeds(read + " 4").out.lines().toList(), "first lines");
        equal(Map.of(0, 4L), committed(group), "committed");
        equal(lines.subList(4, 10), CONSOLE_CONSUMER.succeeds(read + " 6").out.lines().toList(), "other lines");
        equal(Map.of(0, 10L), committed(group), "committed at last");

        try (Child consumer = new Child(ConsoleConsumer.class, "--topic " + topic + " --group " + group)) {
            produce(topic, 0, 10, 11);
            equal("value 10", consumer.line(), "line of the consumer");
            matches("(?m)^" + group + " +console-consumer-\\S+ +/127.0.0.1 +console-consumer +1 *$",
                GROUPS.succeeds("--describe --group " + group + " --members").out);
            consumer.process.toHandle().destroy();
            consumer.end(143);
        }
        // Nobody waits for a session to end here: the consumer has left.
        contains("has no active members", GROUPS.succeeds("--describe --group " + group).err);
        equal(Map.of(0, 11L), committed(group), "committed by the one that was ended");
    }

    private void describesALiveGroup() {
        String topic = createWithRecords("live", 3);
        String group = topic + "-group";
        try (var one = member(group, "one"); var two = member(group, "two")) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            until("the sharing of the topic", () -> {
                one.poll(Duration.ofMillis(20));
                two.poll(Duration.ofMillis(20));
                return one.assignment().size() + two.assignment().size() == 3 && !two.assignment().isEmpty()
                    && !one.assignment().isEmpty();
            });
            // Two of the three partitions go to the same member by the range assignor.
            var large = one.assignment().size() == 2 ? one : two;
            var small = large == one ? two : one;
            var first = large.assignment().iterator().next();
            large.commitSync(Map.of(first, new OffsetAndMetadata(7)));
            List<List<String>> rows = new ArrayList<>();
            for (var member : List.of(large, small)) {
                var metadata = member.groupMetadata();
                for (var partition : member.assignment().stream().map(p -> p.partition()).sorted().toList()) {
                    boolean committed = partition == first.partition();
                    rows.add(List.of(group, topic, "" + partition, committed ? "7" : "-", "10", committed ? "3" : "-",
                        metadata.memberId(), "/127.0.0.1", "client-" + metadata.groupInstanceId().orElseThrow()));
                }
            }
            for (var form : List.of("", " --offsets")) {
                var table = table(GROUPS.succeeds("--describe --group " + group + form));
                equal(List.of("GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID",
                    "HOST", "CLIENT-ID"), table.get(0), "header");
                equal(rows, table.subList(1, table.size()), "rows");
            }
            // In full there is a column more.
            var full = table(GROUPS.succeeds("--describe --group " + group + " --offsets --verbose"));
            equal("LEADER-EPOCH", full.get(0).get(3), "column of offsets in full");
            equal(rows, full.stream().skip(1).map(row ->
                Stream.concat(row.stream().limit(3), row.stream().skip(4)).toList()).toList(), "rows in full");

            var members = table(GROUPS.succeeds("--describe --group " + group + " --members"));
            equal(List.of("GROUP", "CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS"),
                members.get(0), "header of members");
            equal(Stream.of(one, two).map(member -> List.of(group, member.groupMetadata().memberId(),
                member.groupMetadata().groupInstanceId().orElseThrow(), "/127.0.0.1",
                "client-" + member.groupMetadata().groupInstanceId().orElseThrow(), "" + member.assignment().size()
            )).toList(), members.stream().skip(1).sorted((a, b) -> a.get(2).compareTo(b.get(2))).toList(), "members");
            String assignments = GROUPS.succeeds("--describe --group " + group + " --members --verbose").out;
            for (var member : List.of(one, two)) {
                String owned = member.assignment().stream().map(p -> "" + p.partition()).sorted()
                    .collect(Collectors.joining(","));
                matches("(?m)^" + group + " +" + member.groupMetadata().memberId() + " .*[(:]" + owned + "\\b",
                    assignments);
            }
            matches("(?m)^" + group + " +" + BOOTSTRAP + " +\\(\\d+\\) +range +Stable +2 *$",
                GROUPS.succeeds("--describe --group " + group + " --state").out);
            matches("(?m)^" + group + " .* range +Stable +.*2 *$",
                GROUPS.succeeds("--describe --group " + group + " --state --verbose").out);
            contains(group, GROUPS.succeeds("--describe --all-groups --state").out);

            contains("is inactive, but the current state is Stable",
                GROUPS.run("--reset-offsets --group " + group + " --topic " + topic + " --to-earliest --execute").out);
            contains("GroupNotEmptyException", GROUPS.run("--delete --group " + group).out);
            contains("GroupSubscribedToTopicException",
                GROUPS.run("--delete-offsets --group " + group + " --topic " + topic).out);
            equal(Map.of(first.partition(), 7L), committed(group), "committed after what was refused");
        }
    }

    private void listsGroups() {
        String topic = createWithRecords("listed", 1);
        String live = topic + "-live";
        String empty = topic + "-empty";
        CONSOLE_CONSUMER.succeeds("--topic " + topic + " --group " + empty + " --from-beginning --max-messages 1");
        try (var member = member(live, "one")) {
            member.subscribe(List.of(topic));
            until("the assignment", () -> {
                member.poll(Duration.ofMillis(20));
                return !member.assignment().isEmpty();
            });
            var ours = Pattern.compile("(?m)^" + topic + "\\S+");
            equal(List.of(empty, live), ours.matcher(GROUPS.succeeds("--list").out).results().map(r -> r.group())
                .sorted().toList(), "groups");
            var table = table(GROUPS.succeeds("--list --state"));
            equal(List.of("GROUP", "STATE"), table.get(0), "header");
            check(table.contains(List.of(live, "Stable")), "no row for the live group in " + table);
            check(table.contains(List.of(empty, "Empty")), "no row for the empty group in " + table);
            table = table(GROUPS.succeeds("--list --state empty"));
            check(table.contains(List.of(empty, "Empty")) && !table.toString().contains(live), "empty groups " + table);
            table = table(GROUPS.succeeds("--list --state Stable --type classic"));
            check(table.contains(List.of(live, "Classic", "Stable")) && !table.toString().contains(empty),
                "stable groups " + table);
            table = table(GROUPS.succeeds("--list --type consumer"));
            check(!table.toString().contains(topic), "groups of the newer protocol " + table);
            table = table(KAFKA_GROUPS.succeeds("--list --group-type classic"));
            for (String group : List.of(live, empty)) {
                check(table.contains(List.of(group, "Classic", "consumer")), "kafka-groups lists " + table);
            }
        }
    }

    private void resetsOffsets() throws Exception {
        String topic = createWithRecords("reset", 2);
        String group = topic + "-group";
        // A group that is not there yet may have its offsets set, too.
        equal(Map.of(0, 0L, 1, 0L), reset(group, "--topic " + topic + " --to-earliest"), "to the earliest");
        equal(Map.of(0, 10L, 1, 10L), reset(group, "--all-topics --to-latest"), "to the latest");
        equal(Map.of(0, 10L, 1, 4L), reset(group, "--topic " + topic + ":1 --to-offset 4"), "to an offset");
        equal(Map.of(0, 8L, 1, 2L), reset(group, "--topic " + topic + " --shift-by -2"), "back");
        equal(Map.of(0, 9L, 1, 3L), reset(group, "--topic " + topic + ":0,1 --shift-by 1"), "on");
        equal(Map.of(0, 10L, 1, 10L), reset(group, "--topic " + topic + " --to-offset 99"), "beyond the end");
        String fifth = DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSS").withZone(ZoneOffset.UTC)
            .format(Instant.ofEpochMilli(hour(5)));
        equal(Map.of(0, 5L, 1, 5L), reset(group, "--topic " + topic + " --to-datetime " + fifth), "to a time");
        equal(Map.of(0, 7L, 1, 7L), reset(group, "--topic " + topic + " --by-duration PT13H30M"), "by a duration");
        equal(Map.of(0, 7L, 1, 7L), reset(group, "--topic " + topic + " --to-current"), "to the current");
        // Without --execute it only tells what it would do.
        for (String dry : List.of("", " --dry-run")) {
            var planned = table(GROUPS.succeeds(
                "--reset-offsets --group " + group + " --topic " + topic + " --to-earliest" + dry));
            check(planned.contains(List.of(group, topic, "0", "0")), "the plan is " + planned);
            equal(Map.of(0, 7L, 1, 7L), committed(group), "committed after a dry run");
        }
        var all = table(GROUPS.succeeds("--reset-offsets --all-groups --all-topics --to-earliest --dry-run"));
        check(all.contains(List.of(group, topic, "1", "0")), "the plan for all groups is " + all);

        String exported = GROUPS.succeeds(
            "--reset-offsets --group " + group + " --topic " + topic + " --shift-by -4 --export --dry-run").out;
        equal(List.of(topic + ",0,3", topic + ",1,3"),
            exported.lines().filter(line -> !line.isBlank()).sorted().toList(), "exported");
        Path file = Files.writeString(WORK.resolve("reset.csv"), exported.strip() + "\n");
        equal(Map.of(0, 3L, 1, 3L), reset(group, "--from-file " + file), "from a file");
        var read = CONSOLE_CONSUMER.succeeds("--topic " + topic + " --group " + group + " --max-messages 14").out;
        equal(IntStream.range(6, 20).mapToObj(n -> "value " + n / 2).toList(), read.lines().sorted().toList(),
            "values from there");
    }

    private void deletesGroups() {
        String topic = createWithRecords("group-deletion", 2);
        String group = topic + "-group";
        String other = topic + "-other";
        reset(group, "--topic " + topic + " --to-latest");
        reset(other, "--topic " + topic + " --to-latest");
        contains("Request succeeded for deleting offsets",
            GROUPS.succeeds("--delete-offsets --group " + group + " --topic " + topic + ":0").out);
        equal(Map.of(1, 10L), committed(group), "committed after a deletion");
        contains("GroupIdNotFoundException",
            GROUPS.run("--delete-offsets --group " + topic + "-absent --topic " + topic).out);
        contains("Deletion of requested consumer groups",
            GROUPS.succeeds("--delete --group " + group + " --group " + other).out);
        String list = GROUPS.succeeds("--list").out;
        check(!list.contains(group) && !list.contains(other), "deleted groups are listed");
        contains("GroupIdNotFoundException", GROUPS.run("--delete --group " + group).out);
        contains("GroupIdNotFoundException: Group " + group + " not found",
            GROUPS.run("--describe --group " + group).out);
    }

    private void managesShareGroups() {
        String topic = createWithRecords("shared", 2);
        String group = topic + "-group";
        String named = "--entity-type groups --entity-name " + group;
        CONFIGS.succeeds("--alter " + named + " --add-config share.auto.offset.reset=earliest");
        contains("share.auto.offset.reset=earliest", CONFIGS.succeeds("--describe " + named).out);
        var values = CONSOLE_SHARE_CONSUMER.succeeds("--topic " + topic + " --group " + group + " --max-messages 20")
            .out.lines().sorted().toList();
        equal(IntStream.range(0, 20).mapToObj(n -> "value " + n / 2).toList(), values, "records");
        until("the group is empty", () ->
            table(SHARE_GROUPS.succeeds("--list --state")).contains(List.of(group, "Empty")));
        contains(group, KAFKA_GROUPS.succeeds("--list --share").out);
        matches("(?m)^" + group + " +" + BOOTSTRAP + " +\\(\\d+\\) +Empty +0 *$",
            SHARE_GROUPS.succeeds("--describe --group " + group + " --state").out);
        var offsets = table(SHARE_GROUPS.succeeds("--describe --group " + group));
        equal(List.of("GROUP", "TOPIC", "PARTITION", "START-OFFSET", "LAG"), offsets.get(0), "header");
        equal(List.of(List.of(group, topic, "0", "10", "0"), List.of(group, topic, "1", "10", "0")),
            offsets.stream().skip(1).sorted((a, b) -> a.get(2).compareTo(b.get(2))).toList(), "offsets");
        SHARE_GROUPS.succeeds("--reset-offsets --group " + group + " --topic " + topic + " --to-earliest --execute");
        equal(List.of("0", "0"), table(SHARE_GROUPS.succeeds("--describe --group " + group)).stream().skip(1)
            .map(row -> row.get(3)).toList(), "offsets after the reset");
        SHARE_GROUPS.succeeds("--delete-offsets --group " + group + " --topic " + topic);
        check(!SHARE_GROUPS.run("--describe --group " + group).out.contains(topic + " "), "offsets are left");
        SHARE_GROUPS.succeeds("--delete --group " + group);
        check(!SHARE_GROUPS.succeeds("--list").out.contains(group), "the deleted group is listed");
        contains("GroupIdNotFoundException", SHARE_GROUPS.run("--describe --group " + group).out);
    }

    private void readsTheOffsetsTopic() {
        String topic = createWithRecords("internal", 1);
        String group = topic + "-group";
        CONSOLE_CONSUMER.succeeds("--topic " + topic + " --group " + group + " --from-beginning --max-messages 6");
        // The partition that Kafka gives the group. A reader without a group adds no records while it counts.
        var ends = offsets("__consumer_offsets", "latest");
        int partition = Math.abs(group.hashCode()) % ends.size();
        long count = ends.get(partition) - offsets("__consumer_offsets", "earliest").get(partition);
        String read = "--topic __consumer_offsets --partition " + partition
            + " --offset earliest --max-messages " + count + " --formatter ";
        var offsets = ofGroup(group, CONSOLE_CONSUMER.succeeds(read + OffsetsMessageFormatter.class.getName()));
        matches(json("^{'key':{'type':1,'data':{'group':'GROUP','topic':'TOPIC','partition':0}},"
            + "'value':{'version':\\d,'data':{'offset':6,", group, topic), offsets.get(offsets.size() - 1));
        var groups = ofGroup(group, CONSOLE_CONSUMER.succeeds(read + GroupMetadataMessageFormatter.class.getName()));
        String start = "^{'key':{'type':2,'data':{'group':'GROUP'}},"
            + "'value':{'version':\\d,'data':{'protocolType':'consumer',";
        matches(json(start + "'generation':1,'protocol':'range','leader':'console-consumer-", group, topic),
            groups.get(groups.size() - 2));
        // The last member has left.
        matches(json(start + "'generation':2,'protocol':null,'leader':null", group, topic),
            groups.get(groups.size() - 1));
    }

    /** The records of a group, which a formatter has put one after another on one line. */
    private static List<String> ofGroup(String group, Said said) {
        return Arrays.stream(said.out.split("(?<=})(?=\\{\"key\")"))
            .filter(record -> record.contains("\"" + group + "\"")).toList();
    }

    /** A pattern of JSON, whose single quotes stand for double ones, and its braces and brackets for themselves. */
    private static String json(String pattern, String group, String topic) {
        return pattern.replace('\'', '"').replaceAll("[{\\[]", "\\\\$0")
            .replace("GROUP", group).replace("TOPIC", topic);
    }

    // --- the broker's files, and a crash ---

    private void dumpsSegments() throws Exception {
        String topic = create("dumped", 1);
        String group = topic + "-group";
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            CONSOLE_PRODUCER.reading(List.of("a", "b", "c"))
                .succeeds("--topic " + topic + " --compression-codec " + codec);
        }
        String dump = dump(topic + "-0", "--print-data-log");
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            matches("count: 3 baseSequence: 0 lastSequence: 2 producerId: \\d+ .* compresscodec: " + codec + " ", dump);
        }
        equal(IntStream.range(0, 15).boxed().toList(), Pattern.compile("(?m)^\\| offset: (\\d+) ").matcher(dump)
            .results().map(found -> Integer.valueOf(found.group(1))).toList(), "offsets");
        equal("abc".repeat(5), Pattern.compile("(?m) payload: (\\S)$").matcher(dump).results()
            .map(found -> found.group(1)).collect(Collectors.joining()), "values");

        CONSOLE_CONSUMER.succeeds("--topic " + topic + " --group " + group + " --from-beginning --max-messages 8");
        GROUPS.succeeds("--delete-offsets --group " + group + " --topic " + topic);
        String offsets = dump("__consumer_offsets-", "--offsets-decoder");
        String key = "{'group':'GROUP','topic':'TOPIC','partition':0}} payload: ";
        matches(json(key + "{'version':'\\d','data':{'offset':8,", group, topic), offsets);
        matches(json(key + "<DELETE>", group, topic), offsets);
        matches(json("{'group':'GROUP'}} payload: .*'protocolType':'consumer','generation':1,'protocol':'range',.*"
            + "'members':[{'memberId':'console-consumer-.*'topics':['TOPIC'].*"
            + "'assignedPartitions':[{'topic':'TOPIC','partitions':[0]}]", group, topic), offsets);
        check(!offsets.contains("Error at offset") && !offsets.contains("Unknown record type"), "an unknown record");
    }

    /** All segments of the partitions whose directory begins so, none of which may have a bad batch. */
    private static String dump(String directory, String how) throws Exception {
        Path data = Path.of(System.getenv("BROKER_DIR"), "data");
        List<Path> segments;
        try (var files = Files.walk(data)) {
            segments = files.filter(file -> file.getParent().getFileName().toString().startsWith(directory)
                && file.toString().endsWith(".log") && file.toFile().length() > 0).sorted().toList();
        }
        check(!segments.isEmpty(), "no segment of " + directory + " in " + data);
        String files = segments.stream().map(Path::toString).collect(Collectors.joining(","));
        Said said = DUMP_LOG.succeeds(how + " --files " + files);
        equal("", said.err, "errors");
        check(!said.out.contains("isvalid: false") && !said.out.contains("invalid bytes"), "invalid bytes");
        return said.out;
    }

    private void survivesAKill() throws Exception {
        String topic = createWithRecords("killed", 2);
        String group = topic + "-group";
        String deleted = topic + "-deleted";
        CONFIGS.succeeds(
            "--entity-type topics --entity-name " + topic + " --alter --add-config retention.ms=86400000");
        CONSOLE_CONSUMER.succeeds("--topic " + topic + " --group " + group + " --from-beginning --max-messages 12");
        reset(deleted, "--topic " + topic + " --to-latest");
        GROUPS.succeeds("--delete --group " + deleted);
        var committed = committed(group);
        equal(12L, committed.values().stream().mapToLong(offset -> offset).sum(), "committed before");
        String described = TOPICS.succeeds("--describe --topic " + topic).out;
        Process restart = new ProcessBuilder(BROKER, "restart").redirectOutput(ProcessBuilder.Redirect.INHERIT)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        check(restart.waitFor(DEADLINE.toSeconds(), TimeUnit.SECONDS), "the broker does not restart in time");
        equal(0, restart.exitValue(), "exit status of the restart");

        equal(described, TOPICS.succeeds("--describe --topic " + topic).out, "description");
        equal(committed, committed(group), "committed");
        check(!GROUPS.succeeds("--list").out.contains(deleted), "a deleted group is back");
        CONSOLE_PRODUCER.reading(List.of("value 10", "value 11")).succeeds("--topic " + topic);
        var rest = CONSOLE_CONSUMER
            .succeeds("--topic " + topic + " --group " + group + " --max-messages 10" + printing("partition"))
            .out.lines().toList();
        equal(10L, rest.stream().distinct().count(), "different records of " + rest);
        equal(2L, rest.stream().filter(line -> line.matches(".*value 1[01]")).count(), "new records in " + rest);
        committed.forEach((partition, offset) -> {
            String next = "Partition:" + partition + "\tvalue " + offset;
            check(offset == 10 || rest.contains(next), "no " + next + " in " + rest);
        });
    }

    // --- the tools ---

    private static final Tool BROKER_API_VERSIONS = new Tool(BrokerApiVersionsCommand::main);
    private static final Tool TOPICS = new Tool(TopicCommand::main);
    private static final Tool CONFIGS = new Tool(ConfigCommand::main);
    private static final Tool GET_OFFSETS = new Tool(GetOffsetShell::main);
    private static final Tool DELETE_RECORDS = new Tool(DeleteRecordsCommand::main);
    private static final Tool CONSOLE_PRODUCER = new Tool(ConsoleProducer::main);
    private static final Tool CONSOLE_CONSUMER =
        new Tool(ConsoleConsumer::main, " --timeout-ms " + DEADLINE.toMillis());
    private static final Tool CONSUMER_PERFORMANCE = new Tool(ConsumerPerformance::main);
    private static final Tool GROUPS = new Tool(ConsumerGroupCommand::main, " --timeout 30000");
    private static final Tool SHARE_GROUPS = new Tool(ShareGroupCommand::main, " --timeout 30000");
    private static final Tool CONSOLE_SHARE_CONSUMER =
        new Tool(ConsoleShareConsumer::main, " --timeout-ms " + DEADLINE.toMillis());
    private static final Tool KAFKA_GROUPS = new Tool(GroupsCommand::main);
    private static final Tool PRODUCER_PERFORMANCE = new Tool(ProducerPerformance::main);
    private static final Tool DUMP_LOG = new Tool(DumpLogSegments::main, "", InputStream.nullInputStream());

    private interface Main {
        void main(String[] arguments) throws Exception;
    }

    /** What a tool wrote to standard output and error until it ended in this status. */
    private record Said(int status, String out, String err) {}

    /** Ends the thread's work for a tool, as an exit would. */
    private static final class Ended extends RuntimeException {
        private static final long serialVersionUID = 1;
    }

    /** A tool, what its command line ends with always, and its standard input. */
    private record Tool(Main main, String always, InputStream input) {
        Tool(Main main) {
            this(main, "");
        }

        Tool(Main main, String always) {
            this(main, always + " --bootstrap-server " + BOOTSTRAP, InputStream.nullInputStream());
        }

        Tool reading(List<String> lines) {
            byte[] input = (String.join("\n", lines) + "\n").getBytes(StandardCharsets.UTF_8);
            return new Tool(main, always, new ByteArrayInputStream(input));
        }

        Said run(String arguments) {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            List<Runnable> hooks = new ArrayList<>();
            List<Integer> statuses = new ArrayList<>();
            InputStream oldIn = System.in;
            PrintStream oldOut = System.out;
            PrintStream oldErr = System.err;
            // The first exit counts: some tools catch what stands for it here, and exit again.
            Exit.Procedure exit = (status, message) -> {
                statuses.add(status);
                throw new Ended();
            };
            Exit.setExitProcedure(exit);
            Exit.setHaltProcedure(exit);
            Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
            System.setIn(input);
            System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
            System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
            try {
                main.main((arguments + always).strip().split(" "));
            } catch (Ended ended) {
                // The status tells.
            } catch (Exception error) {
                // The virtual machine would exit with this status.
                statuses.add(1);
                error.printStackTrace();
            } finally {
                hooks.forEach(Runnable::run);
                System.setIn(oldIn);
                System.setOut(oldOut);
                System.setErr(oldErr);
            }
            return new Said(statuses.isEmpty() ? 0 : statuses.get(0), out.toString(StandardCharsets.UTF_8),
                err.toString(StandardCharsets.UTF_8));
        }

        Said succeeds(String arguments) {
            Said said = run(arguments);
            check(said.status == 0, "status " + said.status + " of " + arguments + ": " + said.out + said.err);
            return said;
        }

        Said fails(String arguments) {
            Said said = run(arguments);
            check(said.status == 1, "status " + said.status + " of " + arguments + ": " + said.out + said.err);
            return said;
        }
    }

    /** A tool in a process of its own, which is killed if it lives too long. */
    private static final class Child implements AutoCloseable {
        final Process process;
        private final BufferedReader output;

        Child(Class<?> tool, String arguments) throws Exception {
            List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElseThrow(),
                "-Xmx128m", "-cp", System.getProperty("java.class.path"), tool.getName(),
                "--bootstrap-server", BOOTSTRAP));
            command.addAll(List.of(arguments.split(" ")));
            process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
            output = process.inputReader();
            CompletableFuture.delayedExecutor(DEADLINE.toSeconds(), TimeUnit.SECONDS).execute(process::destroyForcibly);
        }

        String line() throws Exception {
            return output.readLine();
        }

        /** What it still said until it ended in this status. */
        List<String> end(int status) throws Exception {
            List<String> rest = output.lines().toList();
            equal(status, process.waitFor(), "exit status");
            return rest;
        }

        @Override
        public void close() {
            process.destroyForcibly();
        }
    }

    // --- what tests are made of ---

    private String create(String name, int partitions) {
        String topic = prefix + name;
        TOPICS.succeeds("--create --topic " + topic + " --partitions " + partitions);
        return topic;
    }

    /** A topic with ten records a partition, "value 0" to "value 9", an hour apart. */
    private String createWithRecords(String name, int partitions) {
        String topic = create(name, partitions);
        for (int partition = 0; partition < partitions; partition++) {
            produce(topic, partition, 0, 10);
        }
        return topic;
    }

    private static void produce(String topic, int partition, int from, int to) {
        Map<String, Object> settings = Map.of("bootstrap.servers", BOOTSTRAP, "key.serializer", StringSerializer.class,
            "value.serializer", StringSerializer.class);
        try (var producer = new KafkaProducer<String, String>(settings)) {
            for (int n = from; n < to; n++) {
                producer.send(new ProducerRecord<>(topic, partition, hour(n), null, "value " + n));
            }
        }
    }

    private static long hour(int n) {
        return START.plus(Duration.ofHours(n)).toEpochMilli();
    }

    private static KafkaConsumer<String, String> member(String group, String instance) {
        return new KafkaConsumer<>(Map.of("bootstrap.servers", BOOTSTRAP, "group.protocol", "classic",
            "group.id", group, "group.instance.id", instance, "client.id", "client-" + instance,
            "enable.auto.commit", "false", "heartbeat.interval.ms", "500",
            "key.deserializer", StringDeserializer.class, "value.deserializer", StringDeserializer.class));
    }

    private static Map<Integer, Long> offsets(String topic, String time) {
        return GET_OFFSETS.succeeds("--topic " + topic + " --time " + time).out.lines().map(line -> line.split(":"))
            .collect(Collectors.toMap(row -> Integer.valueOf(row[1]), row -> Long.valueOf(row[2])));
    }

    /** The offsets of a group that has some for one topic, by partition, as --describe tells them. */
    private static Map<Integer, Long> committed(String group) {
        return table(GROUPS.succeeds("--describe --group " + group)).stream()
            .filter(row -> row.get(0).equals(group) && !row.get(3).equals("-"))
            .collect(Collectors.toMap(row -> Integer.valueOf(row.get(2)), row -> Long.valueOf(row.get(3))));
    }

    /** Resets offsets and answers with what the group has then. */
    private static Map<Integer, Long> reset(String group, String how) {
        var planned = table(GROUPS.succeeds("--reset-offsets --execute --group " + group + " " + how));
        var committed = committed(group);
        for (var row : planned.subList(1, planned.size())) {
            equal(Long.valueOf(row.get(3)), committed.get(Integer.valueOf(row.get(2))), "offset of the row " + row);
        }
        return committed;
    }

    /** The words of each line. */
    private static List<List<String>> table(Said said) {
        return said.out.lines().filter(line -> !line.isBlank()).map(line -> List.of(line.strip().split("\\s+")))
            .toList();
    }

    private static String printing(String... parts) {
        return Arrays.stream(parts).map(part -> " --formatter-property print." + part + "=true")
            .collect(Collectors.joining());
    }

    // --- the smallest of test frameworks ---

    private interface Test {
        void run() throws Exception;
    }

    private void test(String sentence, Test test) {
        try {
            test.run();
            System.out.println("PASS kafka-tools " + sentence);
        } catch (Exception | AssertionError error) {
            failed++;
            String lines = Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().startsWith("Tools"))
                .map(frame -> "" + frame.getLineNumber()).collect(Collectors.joining(" < "));
            String why = error.toString().replace('\n', ' ');
            System.out.println("FAIL kafka-tools " + sentence + ": " + why + " at " + lines);
        }
    }

    private static void check(boolean condition, String why) {
        if (!condition) {
            throw new AssertionError(why);
        }
    }

    private static void equal(Object wanted, Object found, String what) {
        check(Objects.equals(wanted, found), what + ": " + found + " instead of " + wanted);
    }

    private static void contains(String wanted, String found) {
        check(found.contains(wanted), "no \"" + wanted + "\" in: " + abridged(found));
    }

    private static void matches(String pattern, String found) {
        firstGroup("(" + pattern + ")", found);
    }

    private static String firstGroup(String pattern, String found) {
        var matcher = Pattern.compile(pattern).matcher(found);
        check(matcher.find(), "nothing like \"" + pattern + "\" in: " + abridged(found));
        return matcher.group(1);
    }

    private static String abridged(String text) {
        int rest = Math.max(0, text.length() - 1000);
        return text.substring(0, text.length() - rest) + (rest == 0 ? "" : " and " + rest + " more characters");
    }

    private static void until(String what, Callable<Boolean> condition) {
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        try {
            while (!condition.call()) {
                check(System.nanoTime() < deadline, what + " is not seen in time");
            }
        } catch (Exception error) {
            throw new AssertionError(error);
        }
    }
}
