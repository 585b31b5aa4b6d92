import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.services.sqs.SqsAsyncClient;
import software.amazon.awssdk.services.sqs.SqsClient;
import software.amazon.awssdk.services.sqs.model.BatchEntryIdsNotDistinctException;
import software.amazon.awssdk.services.sqs.model.DeleteMessageBatchRequestEntry;
import software.amazon.awssdk.services.sqs.model.EmptyBatchRequestException;
import software.amazon.awssdk.services.sqs.model.InvalidAttributeValueException;
import software.amazon.awssdk.services.sqs.model.Message;
import software.amazon.awssdk.services.sqs.model.MessageAttributeValue;
import software.amazon.awssdk.services.sqs.model.MessageSystemAttributeName;
import software.amazon.awssdk.services.sqs.model.PurgeQueueInProgressException;
import software.amazon.awssdk.services.sqs.model.QueueAttributeName;
import software.amazon.awssdk.services.sqs.model.QueueDoesNotExistException;
import software.amazon.awssdk.services.sqs.model.QueueNameExistsException;
import software.amazon.awssdk.services.sqs.model.ReceiptHandleIsInvalidException;
import software.amazon.awssdk.services.sqs.model.ReceiveMessageRequest;
import software.amazon.awssdk.services.sqs.model.ReceiveMessageResponse;
import software.amazon.awssdk.services.sqs.model.SendMessageBatchRequestEntry;
import software.amazon.awssdk.services.sqs.model.SendMessageRequest;
import software.amazon.awssdk.services.sqs.model.SendMessageResponse;
import software.amazon.awssdk.services.sqs.model.SqsException;
import software.amazon.awssdk.services.sqs.model.TooManyEntriesInBatchRequestException;

/** The AWS SDK for Java v2 against the SQS endpoint: all that a client is told, it takes from the environment. */
public final class Sqs {
    private static final String ENDPOINT =
        Objects.requireNonNull(System.getenv("AWS_ENDPOINT_URL_SQS"), "AWS_ENDPOINT_URL_SQS is not set");
    /** Command that takes `restart`: SIGKILL, a start on the same ports and data. */
    private static final String BROKER = Objects.requireNonNull(System.getenv("BROKER"), "BROKER is not set");
    private static final String ACCOUNT = "000000000000";
    private static final Duration DEADLINE = Duration.ofSeconds(60);
    private static final int HIDDEN_SECONDS = 600;

    private final AtomicBoolean failed = new AtomicBoolean();
    private final SqsClient sqs = SqsClient.create();

    public static void main(String[] arguments) {
        Sqs suite = new Sqs();
        suite.test("queues are made, found, listed and deleted", suite::queuesComeAndGo);
        suite.test("the paginator lists all queues of a prefix", suite::listsInPages);
        suite.test("attributes are set and read back, and wrong ones refused", suite::keepsAttributes);
        suite.test("tags are kept", suite::keepsTags);
        suite.test("a message with attributes of every type comes back as it was sent", suite::comesBackAsSent);
        suite.test("an entry of a batch that fails spoils no other", suite::batchesFailInPart);
        suite.test("errors are those of the SDK's classes", suite::errorsHaveTheirClasses);
        suite.test("a long poll is woken by a message", suite::longPollWakes);
        suite.test("a long poll that is cancelled takes no message", suite::cancelledPollTakesNothing);
        suite.test("a message is hidden as long as it is told", suite::visibilityChanges);
        suite.test("a delayed message holds up no other", suite::delays);
        suite.test("a FIFO queue keeps the order of each group", suite::fifoKeepsOrder);
        suite.test("a FIFO queue takes a message once, by its id or its body", suite::fifoDeduplicates);
        suite.test("a dead letter comes to its queue, and back by a task", suite::deadLetters);
        suite.test("purging drops all messages, once a minute", suite::purges);
        suite.test("who does not know the secret is refused", suite::signaturesAreVerified);
        suite.test("the batch manager sends, receives and deletes 200 messages, each once", suite::managesBatches);
        suite.test("a crash loses no message and brings none back that was deleted", suite::survivesACrash);
        System.exit(suite.failed.get() ? 1 : 0);
    }

    // --- the tests ---

    private void queuesComeAndGo() {
        String name = name("");
        String url = create(name, Map.of());
        equal(ENDPOINT + "/" + ACCOUNT + "/" + name, url, "the URL");
        equal(url, create(name, Map.of()), "the URL, again");
        equal(url, sqs.getQueueUrl(r -> r.queueName(name)).queueUrl(), "the URL that is found");
        equal(List.of(url), sqs.listQueues(r -> r.queueNamePrefix(name)).queueUrls(), "the list");
        sqs.deleteQueue(r -> r.queueUrl(url));
        equal(List.of(), sqs.listQueues(r -> r.queueNamePrefix(name)).queueUrls(), "the list without it");
    }

    private void listsInPages() {
        String prefix = name("-page-");
        List<String> urls = IntStream.range(0, 5).mapToObj(n -> create(prefix + n, Map.of())).toList();
        var pages = sqs.listQueuesPaginator(r -> r.queueNamePrefix(prefix).maxResults(2));
        equal(List.of(2, 2, 1), pages.stream().map(page -> page.queueUrls().size()).toList(), "sizes of pages");
        equal(urls, pages.queueUrls().stream().toList(), "the queues of all pages");
    }

    private void keepsAttributes() {
        String url = create(Map.of(QueueAttributeName.DELAY_SECONDS, "3"));
        var given = Map.of(
            QueueAttributeName.VISIBILITY_TIMEOUT, "77",
            QueueAttributeName.RECEIVE_MESSAGE_WAIT_TIME_SECONDS, "2",
            QueueAttributeName.MAXIMUM_MESSAGE_SIZE, "2048"
        );
        sqs.setQueueAttributes(r -> r.queueUrl(url).attributes(given));
        var found = attributes(url);
        given.forEach((name, value) -> equal(value, found.get(name), name.toString()));
        equal("3", found.get(QueueAttributeName.DELAY_SECONDS), "the delay");
        equal("345600", found.get(QueueAttributeName.MESSAGE_RETENTION_PERIOD), "the retention");
        String queue = url.substring(url.lastIndexOf('/') + 1);
        equal("arn:aws:sqs:us-east-1:" + ACCOUNT + ":" + queue, found.get(QueueAttributeName.QUEUE_ARN), "the ARN");
        var wrong = Map.of(QueueAttributeName.VISIBILITY_TIMEOUT, "43201");
        fails(InvalidAttributeValueException.class, () -> sqs.setQueueAttributes(r -> r.queueUrl(url).attributes(wrong)));
    }

    private void keepsTags() {
        String url = create(Map.of());
        sqs.tagQueue(r -> r.queueUrl(url).tags(Map.of("team", "ü", "stage", "test")));
        equal(Map.of("team", "ü", "stage", "test"), sqs.listQueueTags(r -> r.queueUrl(url)).tags(), "the tags");
        sqs.untagQueue(r -> r.queueUrl(url).tagKeys("stage"));
        equal(Map.of("team", "ü"), sqs.listQueueTags(r -> r.queueUrl(url)).tags(), "the tags that are left");
    }

    private void comesBackAsSent() {
        String url = create(Map.of());
        String body = "line\r\n<&>\"' \t ünï 😀 ".repeat(100);
        var given = Map.of(
            "text", MessageAttributeValue.builder().dataType("String").stringValue("ü\r\n<&>").build(),
            "number", MessageAttributeValue.builder().dataType("Number").stringValue("-12.5").build(),
            "bytes", MessageAttributeValue.builder().dataType("Binary")
                .binaryValue(SdkBytes.fromByteArray(new byte[] {0, -1, 30})).build()
        );
        var sent = sqs.sendMessage(r -> r.queueUrl(url).messageBody(body).messageAttributes(given));
        Message message = receiveAll(url, 1).get(0);
        equal(body, message.body(), "the body");
        equal(sent.messageId(), message.messageId(), "the id");
        equal(sent.md5OfMessageAttributes(), message.md5OfMessageAttributes(), "the digest of the attributes");
        equal(given, message.messageAttributes(), "the attributes");
        equal("1", timesReceived(message), "the count of receives");
        var sentAt = Instant.ofEpochMilli(
            Long.parseLong(message.attributes().get(MessageSystemAttributeName.SENT_TIMESTAMP)));
        check(Duration.between(sentAt, Instant.now()).abs().toSeconds() < 60, "it was sent at " + sentAt);
        delete(url, List.of(message));
        equal("0 0 0", counts(url), "the counts");
    }

    private void batchesFailInPart() {
        String url = create(Map.of(QueueAttributeName.MAXIMUM_MESSAGE_SIZE, "1024"));
        var entries = IntStream.range(0, 10).mapToObj(n -> entry("" + n, n == 3 ? "x".repeat(1025) : "" + n)).toList();
        var sent = sqs.sendMessageBatch(r -> r.queueUrl(url).entries(entries));
        equal("012456789", String.join("", sent.successful().stream().map(entry -> entry.id()).toList()), "what was sent");
        equal(1, sent.failed().size(), "how many were not");
        var failed = sent.failed().get(0);
        equal("3 InvalidParameterValue true", failed.id() + " " + failed.code() + " " + failed.senderFault(), "what was not");
        List<Message> messages = receiveAll(url, 9);
        equal(List.of("0", "1", "2", "4", "5", "6", "7", "8", "9"), bodies(messages).sorted().toList(), "what comes");
        var deleted = sqs.deleteMessageBatch(r -> r.queueUrl(url).entries(
            Stream.concat(
                IntStream.range(0, 9).mapToObj(n -> handle("" + n, messages.get(n).receiptHandle())),
                Stream.of(handle("bad", "no handle"))
            ).toList()));
        equal(9, deleted.successful().size(), "how many were deleted");
        equal(List.of("bad ReceiptHandleIsInvalid"),
            deleted.failed().stream().map(entry -> entry.id() + " " + entry.code()).toList(), "what was not deleted");
        equal("0 0 0", counts(url), "the counts");
    }

    private void errorsHaveTheirClasses() {
        String name = name("-missing");
        String missing = ENDPOINT + "/" + ACCOUNT + "/" + name;
        var error = fails(QueueDoesNotExistException.class, () -> sqs.getQueueUrl(r -> r.queueName(name)));
        equal("AWS.SimpleQueueService.NonExistentQueue", error.awsErrorDetails().errorCode(), "the code");
        equal("The specified queue does not exist.", error.awsErrorDetails().errorMessage(), "the words");
        equal(400, error.statusCode(), "the status");
        fails(QueueDoesNotExistException.class, () -> send(missing, "x"));
        fails(QueueDoesNotExistException.class, () -> sqs.receiveMessage(r -> r.queueUrl(missing)));
        fails(QueueDoesNotExistException.class, () -> sqs.deleteQueue(r -> r.queueUrl(missing)));

        String taken = name("");
        String url = create(taken, Map.of(QueueAttributeName.VISIBILITY_TIMEOUT, "5"));
        fails(QueueNameExistsException.class, () -> create(taken, Map.of(QueueAttributeName.VISIBILITY_TIMEOUT, "6")));
        fails(ReceiptHandleIsInvalidException.class, () -> sqs.deleteMessage(r -> r.queueUrl(url).receiptHandle("x")));
        fails(EmptyBatchRequestException.class, () -> sqs.sendMessageBatch(r -> r.queueUrl(url).entries(List.of())));
        var eleven = IntStream.range(0, 11).mapToObj(n -> entry("" + n, "x")).toList();
        fails(TooManyEntriesInBatchRequestException.class, () -> sqs.sendMessageBatch(r -> r.queueUrl(url).entries(eleven)));
        fails(BatchEntryIdsNotDistinctException.class,
            () -> sqs.sendMessageBatch(r -> r.queueUrl(url).entries(entry("a", "x"), entry("a", "y"))));
        equal("0 0 0", counts(url), "the counts");
    }

    private void longPollWakes() throws Exception {
        String url = create(Map.of());
        try (var async = SqsAsyncClient.create()) {
            long began = System.nanoTime();
            var waiting = async.receiveMessage(r -> r.queueUrl(url).waitTimeSeconds(20));
            // When a second poll ends without a message, the first is surely waiting.
            equal(List.of(), receive(url, 1, 1), "messages of an empty queue");
            check(millisSince(began) > 900, "a poll of a second ended after " + millisSince(began) + " ms");
            send(url, "late");
            var answer = waiting.get(DEADLINE.toSeconds(), TimeUnit.SECONDS);
            equal(List.of("late"), bodies(answer.messages()).toList(), "what came");
            check(millisSince(began) < 15_000, "the poll ended after " + millisSince(began) + " ms");
        }
    }

    private void cancelledPollTakesNothing() {
        String url = create(Map.of());
        try (var async = SqsAsyncClient.create()) {
            CompletableFuture<ReceiveMessageResponse> waiting =
                async.receiveMessage(r -> r.queueUrl(url).waitTimeSeconds(20));
            equal(List.of(), receive(url, 1, 1), "messages of an empty queue");
            waiting.cancel(true);
            fails(CancellationException.class, waiting::join);
        }
        // The client is closed, and with it the connection of the poll.
        send(url, "x");
        equal("1", timesReceived(receiveAll(url, 1).get(0)), "the count of receives");
    }

    private void visibilityChanges() {
        String url = create(Map.of(QueueAttributeName.VISIBILITY_TIMEOUT, "" + HIDDEN_SECONDS));
        send(url, "x");
        Message first = receiveAll(url, 1).get(0);
        equal(List.of(), receive(url, 10, 0), "what comes while it is hidden");
        hide(url, first, 0);
        Message second = receiveAll(url, 1).get(0);
        equal("2", timesReceived(second), "the count of receives");
        var stale = fails(SqsException.class, () -> hide(url, first, 0));
        equal("InvalidParameterValue", stale.awsErrorDetails().errorCode(), "the code for the old handle");
        long began = System.nanoTime();
        hide(url, second, 1);
        List<Message> third = receiveAll(url, 1);
        check(millisSince(began) > 900, "it came back after " + millisSince(began) + " ms");
        delete(url, third);
        equal("0 0 0", counts(url), "the counts");
    }

    private void delays() {
        String url = create(Map.of());
        sqs.sendMessage(r -> r.queueUrl(url).messageBody("delayed").delaySeconds(2));
        send(url, "now");
        equal("1 0 1", counts(url), "the counts");
        equal(List.of("now", "delayed"), bodies(receiveAll(url, 2)).toList(), "what comes");
    }

    private void fifoKeepsOrder() {
        String url = createFifo(Map.of());
        List<String> numbers = new ArrayList<>();
        for (int n = 0; n < 6; n++) {
            String group = n % 2 == 0 ? "a" : "b";
            numbers.add(sendTo(url, group, group + n / 2, "" + n).sequenceNumber());
        }
        equal(numbers.stream().sorted().toList(), numbers, "the sequence numbers");
        List<Message> first = receive(url, 1, 0);
        equal(List.of("a0"), bodies(first).toList(), "the first message");
        var attributes = first.get(0).attributes();
        equal("a", attributes.get(MessageSystemAttributeName.MESSAGE_GROUP_ID), "its group");
        equal(numbers.get(0), attributes.get(MessageSystemAttributeName.SEQUENCE_NUMBER), "its sequence number");
        List<Message> others = receive(url, 10, 0);
        equal(List.of("b0", "b1", "b2"), bodies(others).toList(), "the other group");
        equal(List.of(), receive(url, 10, 0), "what comes while both are taken");
        delete(url, first);
        List<Message> rest = receive(url, 10, 0);
        equal(List.of("a1", "a2"), bodies(rest).toList(), "the rest of the first group");
        delete(url, rest);
        delete(url, others);
        equal("0 0 0", counts(url), "the counts");
    }

    private void fifoDeduplicates() {
        String url = createFifo(Map.of(QueueAttributeName.CONTENT_BASED_DEDUPLICATION, "true"));
        String first = sendTo(url, "g", "same", null).messageId();
        equal(first, sendTo(url, "g", "same", null).messageId(), "the id of one with the same body");
        String own = sendTo(url, "g", "same", "own").messageId();
        check(!own.equals(first), "an own id makes no other message of it");
        equal(own, sendTo(url, "g", "other", "own").messageId(), "the id of one with the same id");
        equal(List.of("same", "same"), bodies(receive(url, 10, 0)).toList(), "what comes");
        var error = fails(SqsException.class, () -> send(url, "x"));
        equal("MissingParameter", error.awsErrorDetails().errorCode(), "the code for a message without a group");
    }

    private void deadLetters() {
        String dead = create(Map.of());
        String policy = "{\"deadLetterTargetArn\": \"" + arn(dead) + "\", \"maxReceiveCount\": 2}";
        String url = create(Map.of(
            QueueAttributeName.REDRIVE_POLICY, policy, QueueAttributeName.VISIBILITY_TIMEOUT, "0"));
        equal(List.of(url), sqs.listDeadLetterSourceQueues(r -> r.queueUrl(dead)).queueUrls(), "the sources");
        var sent = send(url, "poison");
        for (String count : List.of("1", "2")) {
            equal(count, timesReceived(receiveAll(url, 1).get(0)), "the count of receives");
        }
        equal(List.of(), receive(url, 10, 0), "what comes when it is dead");
        Message letter = receiveAll(dead, 1).get(0);
        equal("poison " + sent.messageId(), letter.body() + " " + letter.messageId(), "the dead letter");
        equal(arn(url), letter.attributes().get(MessageSystemAttributeName.DEAD_LETTER_QUEUE_SOURCE_ARN), "its source");
        hide(dead, letter, 0);
        String source = arn(dead);
        sqs.startMessageMoveTask(r -> r.sourceArn(source));
        until("the end of the move task", () -> {
            var tasks = sqs.listMessageMoveTasks(r -> r.sourceArn(source)).results();
            return tasks.size() == 1 && tasks.get(0).status().equals("COMPLETED")
                && tasks.get(0).approximateNumberOfMessagesMoved() == 1;
        });
        equal("0 0 0, 1 0 0", counts(dead) + ", " + counts(url), "the counts of both");
    }

    private void purges() {
        String url = create(Map.of());
        for (int n = 0; n < 3; n++) {
            send(url, "" + n);
        }
        sqs.purgeQueue(r -> r.queueUrl(url));
        equal("0 0 0", counts(url), "the counts");
        fails(PurgeQueueInProgressException.class, () -> sqs.purgeQueue(r -> r.queueUrl(url)));
        send(url, "after");
        equal(List.of("after"), bodies(receiveAll(url, 1)).toList(), "what comes");
    }

    private void signaturesAreVerified() {
        var wrong = AwsBasicCredentials.create(System.getenv("AWS_ACCESS_KEY_ID"), "wrong");
        try (var stranger = SqsClient.builder().credentialsProvider(StaticCredentialsProvider.create(wrong)).build()) {
            var error = fails(SqsException.class, stranger::listQueues);
            equal("SignatureDoesNotMatch", error.awsErrorDetails().errorCode(), "the code");
            equal(403, error.statusCode(), "the status");
        }
    }

    private void managesBatches() throws Exception {
        String url = create(Map.of());
        List<String> sent = IntStream.range(100, 300).mapToObj(n -> "" + n).toList();
        List<String> received = new ArrayList<>();
        try (var async = SqsAsyncClient.create(); var manager = async.batchManager()) {
            var sending = sent.stream().map(body -> manager.sendMessage(r -> r.queueUrl(url).messageBody(body))).toList();
            long ids = await(sending).stream().map(SendMessageResponse::messageId).distinct().count();
            equal(200L, ids, "the ids");
            until("200 messages", () -> {
                var some = manager.receiveMessage(r -> r.queueUrl(url).maxNumberOfMessages(10))
                    .get(DEADLINE.toSeconds(), TimeUnit.SECONDS).messages();
                bodies(some).forEach(received::add);
                await(some.stream().map(message -> manager.deleteMessage(
                    r -> r.queueUrl(url).receiptHandle(message.receiptHandle()))).toList());
                return received.size() >= 200;
            });
        }
        equal(sent, received.stream().sorted().toList(), "what comes");
        equal("0 0 0", counts(url), "the counts");
    }

    private void survivesACrash() throws Exception {
        String url = create(Map.of());
        String fifo = createFifo(Map.of(QueueAttributeName.CONTENT_BASED_DEDUPLICATION, "true"));
        List<String> sent = IntStream.range(100, 130).mapToObj(n -> "" + n).toList();
        sent.forEach(body -> send(url, body));
        String once = sendTo(fifo, "g", "once", null).messageId();
        List<Message> deleted = receiveAll(url, 10);
        List<Message> held = receiveAll(url, 10);
        held.forEach(message -> hide(url, message, HIDDEN_SECONDS));
        delete(url, deleted);
        equal("10 10 0", counts(url), "the counts");
        restart();
        until("an answer of the queue", () -> {
            try {
                return !counts(url).isEmpty();
            } catch (SdkException notYet) {
                return false;
            }
        });
        equal("10 10 0", counts(url), "the counts after the crash");
        List<Message> rest = receiveAll(url, 10);
        equal(List.of(), receive(url, 10, 0), "what comes after the rest");
        var all = Stream.of(deleted, held, rest).flatMap(Sqs::bodies).sorted().toList();
        equal(sent, all, "all messages");
        delete(url, held);
        delete(url, rest);
        equal("0 0 0", counts(url), "the counts when all are deleted");
        equal(once, sendTo(fifo, "g", "once", null).messageId(), "the id of a duplicate");
        equal(List.of("once"), bodies(receive(fifo, 10, 0)).toList(), "what comes of both");
    }

    // --- the calls that tests are made of ---

    private static String name(String suffix) {
        return "q-" + UUID.randomUUID().toString().substring(0, 13) + suffix;
    }

    private String create(String name, Map<QueueAttributeName, String> attributes) {
        return sqs.createQueue(r -> r.queueName(name).attributes(attributes)).queueUrl();
    }

    private String create(Map<QueueAttributeName, String> attributes) {
        return create(name(""), attributes);
    }

    private String createFifo(Map<QueueAttributeName, String> more) {
        var attributes = new HashMap<>(more);
        attributes.put(QueueAttributeName.FIFO_QUEUE, "true");
        return create(name(".fifo"), attributes);
    }

    private Map<QueueAttributeName, String> attributes(String url) {
        return sqs.getQueueAttributes(r -> r.queueUrl(url).attributeNames(QueueAttributeName.ALL)).attributes();
    }

    private String arn(String url) {
        return attributes(url).get(QueueAttributeName.QUEUE_ARN);
    }

    /** How many messages wait, are with somebody, and are delayed. */
    private String counts(String url) {
        var found = attributes(url);
        return String.join(" ",
            found.get(QueueAttributeName.APPROXIMATE_NUMBER_OF_MESSAGES),
            found.get(QueueAttributeName.APPROXIMATE_NUMBER_OF_MESSAGES_NOT_VISIBLE),
            found.get(QueueAttributeName.APPROXIMATE_NUMBER_OF_MESSAGES_DELAYED));
    }

    private SendMessageResponse send(String url, String body) {
        return sqs.sendMessage(r -> r.queueUrl(url).messageBody(body));
    }

    /** Sends to a group of a FIFO queue, with an id to tell duplicates by, or null. */
    private SendMessageResponse sendTo(String url, String group, String body, String id) {
        return sqs.sendMessage(SendMessageRequest.builder()
            .queueUrl(url).messageBody(body).messageGroupId(group).messageDeduplicationId(id).build());
    }

    /** What one call gives, with all attributes. */
    private List<Message> receive(String url, int count, int waitSeconds) {
        return sqs.receiveMessage(ReceiveMessageRequest.builder()
            .queueUrl(url)
            .maxNumberOfMessages(count)
            .waitTimeSeconds(waitSeconds)
            .messageAttributeNames("All")
            .messageSystemAttributeNames(MessageSystemAttributeName.ALL)
            .build()).messages();
    }

    /** So many messages, which may take several calls. */
    private List<Message> receiveAll(String url, int count) {
        List<Message> found = new ArrayList<>();
        until(count + " messages", () -> {
            found.addAll(receive(url, Math.min(10, count - found.size()), 1));
            return found.size() == count;
        });
        return found;
    }

    private void delete(String url, Collection<Message> messages) {
        messages.forEach(message -> sqs.deleteMessage(r -> r.queueUrl(url).receiptHandle(message.receiptHandle())));
    }

    private Object hide(String url, Message message, int seconds) {
        return sqs.changeMessageVisibility(
            r -> r.queueUrl(url).receiptHandle(message.receiptHandle()).visibilityTimeout(seconds));
    }

    private static String timesReceived(Message message) {
        return message.attributes().get(MessageSystemAttributeName.APPROXIMATE_RECEIVE_COUNT);
    }

    private static Stream<String> bodies(Collection<Message> messages) {
        return messages.stream().map(Message::body);
    }

    private static SendMessageBatchRequestEntry entry(String id, String body) {
        return SendMessageBatchRequestEntry.builder().id(id).messageBody(body).build();
    }

    private static DeleteMessageBatchRequestEntry handle(String id, String receiptHandle) {
        return DeleteMessageBatchRequestEntry.builder().id(id).receiptHandle(receiptHandle).build();
    }

    /** SIGKILL, and a broker that serves again. */
    private static void restart() throws Exception {
        var restart = new ProcessBuilder(BROKER, "restart")
            .redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectError(ProcessBuilder.Redirect.DISCARD).start();
        check(restart.waitFor(DEADLINE.toSeconds(), TimeUnit.SECONDS), "the broker is not back in time");
        equal(0, restart.exitValue(), "exit status of the restart");
    }

    // --- what every test is made of ---

    @FunctionalInterface
    private interface Test {
        void run() throws Exception;
    }

    private void test(String sentence, Test test) {
        try {
            test.run();
            System.out.println("PASS sqs-java " + sentence);
        } catch (Exception | AssertionError error) {
            failed.set(true);
            String line = Stream.of(error.getStackTrace()).filter(frame -> frame.getFileName().equals("Sqs.java"))
                .filter(frame -> !List.of("equal", "check", "fails", "until").contains(frame.getMethodName()))
                .findFirst().map(frame -> "line " + frame.getLineNumber()).orElse("nowhere here");
            System.out.println("FAIL sqs-java " + sentence + ": " + error.toString().replace('\n', ' ') + " (" + line + ")");
        }
    }

    private static void check(boolean condition, String otherwise) {
        if (!condition) {
            throw new AssertionError(otherwise);
        }
    }

    private static void equal(Object wanted, Object got, String what) {
        check(Objects.equals(wanted, got), what + ": " + got + " instead of " + wanted);
    }

    /** Fails unless the call throws this very class or one below it. */
    private static <E extends Exception> E fails(Class<E> wanted, Callable<?> call) {
        try {
            call.call();
        } catch (Exception error) {
            check(wanted.isInstance(error), error + " instead of " + wanted.getSimpleName());
            return wanted.cast(error);
        }
        throw new AssertionError("no " + wanted.getSimpleName());
    }

    /** Asks again until it is so; what is asked waits by itself, or is quickly answered. */
    private static void until(String what, Callable<Boolean> condition) {
        long began = System.nanoTime();
        try {
            while (!condition.call()) {
                check(millisSince(began) < DEADLINE.toMillis(), "not in time: " + what);
            }
        } catch (RuntimeException | AssertionError error) {
            throw error;
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static <T> List<T> await(List<CompletableFuture<T>> futures) throws Exception {
        List<T> found = new ArrayList<>();
        for (var future : futures) {
            found.add(future.get(DEADLINE.toSeconds(), TimeUnit.SECONDS));
        }
        return found;
    }

    private static long millisSince(long beganNanos) {
        return Duration.ofNanos(System.nanoTime() - beganNanos).toMillis();
    }
}
