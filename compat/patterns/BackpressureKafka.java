// A full queue slows Java's KafkaProducer down: it waits, sends on in order when there is room, or gives up in its time.
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringSerializer;
import software.amazon.awssdk.services.sqs.SqsClient;

public final class BackpressureKafka {
    private static final int ROOM = 10;
    private static final String BOOTSTRAP = System.getenv().getOrDefault("BOOTSTRAP", "127.0.0.1:9092");

    public static void main(String[] arguments) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP))) {
            var config = Map.of("ottla.queue.enable", "true", "ottla.queue.max.messages", String.valueOf(ROOM));
            var queue = new NewTopic("jobs", Optional.of(1), Optional.empty()).configs(config);
            admin.createTopics(List.of(queue)).all().get();
        }
        try (KafkaProducer<String, String> producer = producer(20_000)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = 0; n < 3 * ROOM; n++) {
                sent.add(producer.send(new ProducerRecord<>("jobs", String.valueOf(n))));
                if (n < ROOM) {
                    // One by one, so that the queue is filled to its brim.
                    sent.get(n).get(5, TimeUnit.SECONDS);
                }
            }
            Thread.sleep(1000);
            check(sent.stream().filter(Future::isDone).count() == ROOM, "it does not wait when the queue is full");
            check(workOff(3 * ROOM).equals(IntStream.range(0, 3 * ROOM).mapToObj(String::valueOf).toList()), "order");
            for (var record : sent) {
                record.get(5, TimeUnit.SECONDS);
            }
        }
        try (KafkaProducer<String, String> impatient = producer(1500)) {
            for (int n = 0; n < ROOM; n++) {
                impatient.send(new ProducerRecord<>("jobs", "more")).get(5, TimeUnit.SECONDS);
            }
            impatient.send(new ProducerRecord<>("jobs", "beyond")).get(10, TimeUnit.SECONDS);
            throw new AssertionError("a record was taken by a full queue");
        } catch (ExecutionException refused) {
            check(refused.getCause() instanceof TimeoutException || refused.getCause() instanceof RetriableException,
                "refused for good: " + refused.getCause());
        }
        System.exit(0);
    }

    private static KafkaProducer<String, String> producer(int deliveryMs) {
        return new KafkaProducer<>(Map.of(
            ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, BOOTSTRAP,
            ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, deliveryMs,
            ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, 1000,
            ProducerConfig.LINGER_MS_CONFIG, 0
        ), new StringSerializer(), new StringSerializer());
    }

    /** Receives and deletes so many messages. */
    private static List<String> workOff(int count) {
        List<String> bodies = new ArrayList<>();
        try (SqsClient sqs = SqsClient.create()) {
            String url = sqs.getQueueUrl(r -> r.queueName("jobs")).queueUrl();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
            while (bodies.size() < count) {
                check(System.nanoTime() < deadline, "only " + bodies + " came");
                for (var message : sqs.receiveMessage(r -> r.queueUrl(url).waitTimeSeconds(1)).messages()) {
                    bodies.add(message.body());
                    sqs.deleteMessage(r -> r.queueUrl(url).receiptHandle(message.receiptHandle()));
                }
            }
        }
        return bodies;
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
