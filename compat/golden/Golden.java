import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ConsumerProtocolAssignment;
import org.apache.kafka.common.message.ConsumerProtocolSubscription;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.coordinator.group.generated.GroupMetadataKey;
import org.apache.kafka.coordinator.group.generated.GroupMetadataValue;
import org.apache.kafka.coordinator.group.generated.OffsetCommitKey;
import org.apache.kafka.coordinator.group.generated.OffsetCommitValue;
import org.apache.kafka.coordinator.group.generated.ShareGroupCurrentMemberAssignmentValue;
import org.apache.kafka.coordinator.group.generated.ShareGroupMemberMetadataKey;
import org.apache.kafka.coordinator.group.generated.ShareGroupMemberMetadataValue;
import org.apache.kafka.coordinator.group.generated.ShareGroupMetadataValue;
import org.apache.kafka.coordinator.share.generated.ShareSnapshotKey;
import org.apache.kafka.coordinator.share.generated.ShareSnapshotValue;
import org.apache.kafka.coordinator.share.generated.ShareUpdateKey;
import org.apache.kafka.coordinator.share.generated.ShareUpdateValue;

/**
 * Writes golden bytes with Apache Kafka's own message classes: one file per API, one line per message, as README.md
 * of this directory describes. What a version consists of is read from the schemas in the classes, so nothing here
 * knows any message by its fields.
 */
public final class Golden {
    private static final List<ApiKeys> APIS = List.of(
        ApiKeys.PRODUCE, ApiKeys.FETCH, ApiKeys.LIST_OFFSETS, ApiKeys.METADATA, ApiKeys.API_VERSIONS,
        ApiKeys.CREATE_TOPICS, ApiKeys.DELETE_TOPICS, ApiKeys.DELETE_RECORDS, ApiKeys.INIT_PRODUCER_ID,
        ApiKeys.OFFSET_FOR_LEADER_EPOCH, ApiKeys.DESCRIBE_CONFIGS, ApiKeys.ALTER_CONFIGS, ApiKeys.CREATE_PARTITIONS,
        ApiKeys.INCREMENTAL_ALTER_CONFIGS, ApiKeys.DESCRIBE_CLUSTER, ApiKeys.DESCRIBE_TOPIC_PARTITIONS,
        ApiKeys.FIND_COORDINATOR, ApiKeys.JOIN_GROUP, ApiKeys.SYNC_GROUP, ApiKeys.HEARTBEAT, ApiKeys.LEAVE_GROUP,
        ApiKeys.OFFSET_COMMIT, ApiKeys.OFFSET_FETCH, ApiKeys.OFFSET_DELETE, ApiKeys.LIST_GROUPS, ApiKeys.DESCRIBE_GROUPS,
        ApiKeys.DELETE_GROUPS, ApiKeys.DESCRIBE_LOG_DIRS, ApiKeys.LIST_CONFIG_RESOURCES, ApiKeys.SHARE_GROUP_HEARTBEAT,
        ApiKeys.SHARE_GROUP_DESCRIBE, ApiKeys.SHARE_FETCH, ApiKeys.SHARE_ACKNOWLEDGE,
        ApiKeys.DESCRIBE_SHARE_GROUP_OFFSETS, ApiKeys.ALTER_SHARE_GROUP_OFFSETS, ApiKeys.DELETE_SHARE_GROUP_OFFSETS);

    private enum Shape { DEFAULT, FULL, NULL }

    public static void main(String[] arguments) throws Exception {
        Path directory = Path.of(arguments[0]);
        for (ApiKeys api : APIS) {
            short last = api.latestVersion(false);
            List<String> lines = new ArrayList<>();
            addLines(lines, "request", api.messageType.newRequest().getClass(), api.messageType.requestSchemas(),
                api.oldestVersion(), last);
            addLines(lines, "response", api.messageType.newResponse().getClass(), api.messageType.responseSchemas(),
                api.oldestVersion(), last);
            write(directory.resolve(snakeCase(api.name) + ".txt"), lines);
        }
        List<String> headers = new ArrayList<>();
        addLines(headers, "request", RequestHeaderData.class, RequestHeaderData.SCHEMAS, 1, 2);
        addLines(headers, "response", ResponseHeaderData.class, ResponseHeaderData.SCHEMAS, 0, 1);
        write(directory.resolve("headers.txt"), headers);
        List<String> records = new ArrayList<>();
        addLines(records, "offset_commit_key", OffsetCommitKey.class, OffsetCommitKey.SCHEMAS, 0, 0);
        addLines(records, "offset_commit_value", OffsetCommitValue.class, OffsetCommitValue.SCHEMAS, 0, 4);
        addLines(records, "group_metadata_key", GroupMetadataKey.class, GroupMetadataKey.SCHEMAS, 0, 0);
        addLines(records, "group_metadata_value", GroupMetadataValue.class, GroupMetadataValue.SCHEMAS, 0, 4);
        addLines(records, "subscription", ConsumerProtocolSubscription.class, ConsumerProtocolSubscription.SCHEMAS, 0, 3);
        addLines(records, "assignment", ConsumerProtocolAssignment.class, ConsumerProtocolAssignment.SCHEMAS, 0, 3);
        write(directory.resolve("group_records.txt"), records);
        List<String> share = new ArrayList<>();
        addLines(share, "member_key", ShareGroupMemberMetadataKey.class, ShareGroupMemberMetadataKey.SCHEMAS, 0, 0);
        addLines(share, "member_value", ShareGroupMemberMetadataValue.class, ShareGroupMemberMetadataValue.SCHEMAS, 0, 0);
        addLines(share, "group_value", ShareGroupMetadataValue.class, ShareGroupMetadataValue.SCHEMAS, 0, 0);
        addLines(share, "assignment_value", ShareGroupCurrentMemberAssignmentValue.class,
            ShareGroupCurrentMemberAssignmentValue.SCHEMAS, 0, 0);
        addLines(share, "snapshot_key", ShareSnapshotKey.class, ShareSnapshotKey.SCHEMAS, 0, 0);
        addLines(share, "snapshot_value", ShareSnapshotValue.class, ShareSnapshotValue.SCHEMAS, 0, 0);
        addLines(share, "update_key", ShareUpdateKey.class, ShareUpdateKey.SCHEMAS, 0, 0);
        addLines(share, "update_value", ShareUpdateValue.class, ShareUpdateValue.SCHEMAS, 0, 0);
        addForeignTags(share);
        write(directory.resolve("share_records.txt"), share);
    }

    private static void addLines(
        List<String> lines, String direction, Class<? extends Message> type, Schema[] schemas, int first, int last
    ) throws ReflectiveOperationException {
        for (short version = (short) first; version <= last; version++) {
            Set<String> bodies = new LinkedHashSet<>();
            for (Shape shape : Shape.values()) {
                Message message = new Filler(shape).message(type, schemas[version]);
                String body = HexFormat.of().formatHex(bytes(message, version));
                // A version without fields, or without nullable ones, has fewer than three shapes.
                if (bodies.add(body)) {
                    lines.add(String.join(" ", direction, "v" + version, shape.name().toLowerCase(),
                        body.isEmpty() ? "-" : body, json(message, version).toString()));
                }
            }
        }
    }

    /** An update with the tagged fields that are Ottla's own: Kafka's reader passes over them, and its writer keeps them. */
    private static void addForeignTags(List<String> lines) throws ReflectiveOperationException {
        ShareUpdateValue value = new Filler(Shape.FULL).message(ShareUpdateValue.class, ShareUpdateValue.SCHEMAS[0]);
        for (int at = 0; at < 2; at++) {
            byte[] time = ByteBuffer.allocate(Long.BYTES).putLong(1_700_000_000_000L + at).array();
            value.stateBatches().get(at).unknownTaggedFields().add(new RawTaggedField(10_000 + at, time));
        }
        lines.add(String.join(" ", "update_value", "v0", "foreign",
            HexFormat.of().formatHex(bytes(value, (short) 0)), json(value, (short) 0).toString()));
    }

    /** Encodes, and proves by decoding that the bytes say the same as the message. */
    private static byte[] bytes(Message message, short version) throws ReflectiveOperationException {
        ByteBuffer encoded = MessageUtil.toByteBufferAccessor(message, version).buffer();
        Message decoded = message.getClass().getConstructor().newInstance();
        ByteBuffer left = encoded.duplicate();
        decoded.read(new ByteBufferAccessor(left), version);
        if (left.hasRemaining() || !MessageUtil.toByteBufferAccessor(decoded, version).buffer().equals(encoded)) {
            throw new IllegalStateException(message.getClass() + " v" + version + " does not read what it wrote");
        }
        byte[] bytes = new byte[encoded.remaining()];
        encoded.get(bytes);
        return bytes;
    }

    private static JsonNode json(Message message, short version) throws ReflectiveOperationException {
        Method write = Class.forName(message.getClass().getName() + "JsonConverter")
            .getMethod("write", message.getClass(), short.class);
        return (JsonNode) write.invoke(null, message, version);
    }

    private static String snakeCase(String camelCase) {
        return camelCase.replaceAll("(?<=[a-z])(?=[A-Z])", "_").toLowerCase();
    }

    private static void write(Path file, List<String> lines) throws IOException {
        Files.write(file, lines, StandardCharsets.UTF_8);
        System.out.println(file.getFileName() + ": " + lines.size() + " lines");
    }

    /** Makes one message. Values come from a counter, so each field of a message has one of its own. */
    private static final class Filler {
        private final Shape shape;
        private int counter;

        Filler(Shape shape) {
            this.shape = shape;
        }

        <T> T message(Class<T> type, Schema schema) throws ReflectiveOperationException {
            T message = type.getConstructor().newInstance();
            if (shape != Shape.DEFAULT) {
                for (BoundField field : schema.fields()) {
                    if (field.def.type instanceof TaggedFields tagged) {
                        for (Field inside : tagged.fields().values()) {
                            set(message, inside);
                        }
                    } else {
                        set(message, field.def);
                    }
                }
            }
            return message;
        }

        private void set(Object message, Field field) throws ReflectiveOperationException {
            String name = "set" + field.name.replace("_", "");
            for (Method setter : message.getClass().getMethods()) {
                if (setter.getName().equalsIgnoreCase(name)) {
                    boolean empty = shape == Shape.NULL && field.type.isNullable();
                    setter.invoke(message, empty ? null : value(message, field, setter));
                    return;
                }
            }
            throw new NoSuchMethodException(message.getClass() + " " + name);
        }

        private Object value(Object message, Field field, Method setter) throws ReflectiveOperationException {
            Type type = setter.getGenericParameterTypes()[0];
            if (field.type.arrayElementType().isPresent()) {
                var element = field.type.arrayElementType().get();
                if (type instanceof ParameterizedType list) {
                    Type of = list.getActualTypeArguments()[0];
                    return List.of(element(field, element, of), element(field, element, of));
                }
                // A collection class of the message: its elements are what its `find` answers with.
                @SuppressWarnings("unchecked")
                var collection = (Collection<Object>) ((Class<?>) type).getConstructor().newInstance();
                Type of = ((ParameterizedType) ((Class<?>) type).getGenericSuperclass()).getActualTypeArguments()[0];
                collection.add(element(field, element, of));
                collection.add(element(field, element, of));
                return collection;
            }
            if (type == boolean.class) {
                return !(boolean) message.getClass().getMethod(getter(setter)).invoke(message);
            }
            return element(field, field.type, type);
        }

        private Object element(Field field, org.apache.kafka.common.protocol.types.Type wire, Type type)
            throws ReflectiveOperationException {
            if (wire instanceof Schema schema) {
                return message((Class<?>) type, schema);
            }
            int n = ++counter;
            return switch (((Class<?>) type).getSimpleName()) {
                case "byte", "Byte" -> (byte) (n % 100 + 2);
                case "short", "Short" -> (short) (1000 + n);
                case "int", "Integer" -> 1_000_000 + n;
                case "long", "Long" -> 1_000_000_000_000L + n;
                case "String" -> field.name.replace('_', '-') + "-" + n;
                case "byte[]" -> (field.name.replace('_', '-') + "-" + n).getBytes(StandardCharsets.UTF_8);
                case "ByteBuffer" ->
                    ByteBuffer.wrap((field.name.replace('_', '-') + "-" + n).getBytes(StandardCharsets.UTF_8));
                case "Uuid" -> new Uuid(0x0123_4567_89ab_0000L + n, 0x1234_5678_9abc_0000L + n);
                case "BaseRecords" -> MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(
                    1_700_000_000_000L + n, ("key-" + n).getBytes(StandardCharsets.UTF_8),
                    ("value-" + n).getBytes(StandardCharsets.UTF_8)));
                default -> throw new IllegalStateException("no value for " + type + " of " + field.name);
            };
        }

        private static String getter(Method setter) {
            String name = setter.getName().substring("set".length());
            return Character.toLowerCase(name.charAt(0)) + name.substring(1);
        }
    }
}
