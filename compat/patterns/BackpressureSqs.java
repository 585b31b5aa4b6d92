// A full queue answers the AWS SDK for Java with a 429 that its standard retries wait out.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import software.amazon.awssdk.awscore.retry.AwsRetryStrategy;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.retries.api.RetryStrategy;
import software.amazon.awssdk.services.sqs.SqsClient;
import software.amazon.awssdk.services.sqs.model.SqsException;

public final class BackpressureSqs {
    private static final String QUEUES = System.getenv().getOrDefault("HTTP", "http://127.0.0.1:9464") + "/queues";

    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(QUEUES)).header("content-type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString("{\"name\": \"full\", \"settings\": {\"max.messages\": 2}}")).build();
        check(HttpClient.newHttpClient().send(request, BodyHandlers.discarding()).statusCode() == 201, "no queue");

        var patience = AwsRetryStrategy.standardRetryStrategy().toBuilder().maxAttempts(10).build();
        var attempts = new AtomicInteger();
        try (SqsClient impatient = client(AwsRetryStrategy.doNotRetry(), new AtomicInteger());
             SqsClient patient = client(patience, attempts)) {
            String url = patient.getQueueUrl(r -> r.queueName("full")).queueUrl();
            patient.sendMessage(r -> r.queueUrl(url).messageBody("one"));
            patient.sendMessage(r -> r.queueUrl(url).messageBody("two"));
            try {
                impatient.sendMessage(r -> r.queueUrl(url).messageBody("never"));
                throw new AssertionError("a full queue took a message");
            } catch (SqsException refused) {
                check(refused.statusCode() == 429 && refused.isThrottlingException(), "refused with " + refused);
            }
            attempts.set(0);
            var waiting = CompletableFuture.runAsync(() -> patient.sendMessage(r -> r.queueUrl(url).messageBody("three")));
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
            while (attempts.get() < 3) {
                check(System.nanoTime() < deadline && !waiting.isDone(), "it does not try again");
                Thread.sleep(10);
            }
            check(receive(impatient, url).equals("one"), "the first comes first");
            waiting.get(20, TimeUnit.SECONDS);
            check(receive(impatient, url).equals("two") && receive(impatient, url).equals("three"), "the others come then");
        }
    }

    /** A client that counts its attempts. */
    private static SqsClient client(RetryStrategy retries, AtomicInteger attempts) {
        var counting = new ExecutionInterceptor() {
            @Override
            public void beforeTransmission(Context.BeforeTransmission context, ExecutionAttributes attributes) {
                attempts.incrementAndGet();
            }
        };
        return SqsClient.builder()
            .overrideConfiguration(o -> o.retryStrategy(retries).addExecutionInterceptor(counting)
                .apiCallTimeout(Duration.ofSeconds(30)))
            .build();
    }

    private static String receive(SqsClient sqs, String url) {
        var message = sqs.receiveMessage(r -> r.queueUrl(url).waitTimeSeconds(5)).messages().get(0);
        sqs.deleteMessage(r -> r.queueUrl(url).receiptHandle(message.receiptHandle()));
        return message.body();
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
