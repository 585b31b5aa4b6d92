// The suite of the AWS SDK for Go v2 against the SQS endpoint: all that a client is told, it takes from the environment.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	. "ottla/compat/suite"
)

const account = "000000000000"

var (
	endpoint = os.Getenv("AWS_ENDPOINT_URL_SQS")
	names    atomic.Int64
)

// suite is what one test sees.
type suite struct {
	ctx    context.Context
	client *sqs.Client
	prefix string
}

func main() {
	s := New("sqs-go")
	client := newClient()
	test := func(sentence string, run func(*suite)) Test {
		return Test{Sentence: sentence, Run: func(ctx context.Context) { run(&suite{ctx, client, s.Prefix}) }}
	}
	s.Together(
		test("queues are made, found, listed and deleted", (*suite).queuesComeAndGo),
		test("the paginator lists all queues of a prefix", (*suite).listsInPages),
		test("attributes are set and read back, and wrong ones refused", (*suite).keepsAttributes),
		test("tags are kept", (*suite).keepsTags),
		test("a message with attributes of every type comes back as it was sent", (*suite).comesBackAsSent),
		test("an entry of a batch that fails spoils no other", (*suite).batchesFailInPart),
		test("errors are those of the SDK's types", (*suite).errorsHaveTheirTypes),
		test("a long poll is woken by a message", (*suite).longPollWakes),
		test("a long poll that is cancelled takes no message", (*suite).cancelledPollTakesNothing),
		test("a message is hidden as long as it is told", (*suite).visibilityChanges),
		test("a delayed message holds up no other", (*suite).delays),
		test("a FIFO queue keeps the order of each group", (*suite).fifoKeepsOrder),
		test("a FIFO queue takes a message once, by its id or its body", (*suite).fifoDeduplicates),
		test("a dead letter comes to its queue, and back by a task", (*suite).deadLetters),
		test("purging drops all messages, once a minute", (*suite).purges),
		test("who does not know the secret is refused", (*suite).signaturesAreVerified),
		test("three consumers share 200 messages, each once", (*suite).consumersShare),
	)
	crash := test("a crash loses no message and brings none back that was deleted", (*suite).survivesACrash)
	s.Test(crash.Sentence, crash.Run)
	s.End()
}

func newClient(options ...func(*config.LoadOptions) error) *sqs.Client {
	loaded, err := config.LoadDefaultConfig(context.Background(), options...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return sqs.NewFromConfig(loaded)
}

// --- the calls that tests are made of ---

func (s *suite) name(suffix string) string {
	return fmt.Sprintf("%s%d%s", s.prefix, names.Add(1), suffix)
}

type attributes = map[string]string

func (s *suite) createNamed(name string, attributes attributes) *string {
	return Must(s.client.CreateQueue(s.ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})).QueueUrl
}

func (s *suite) create(attributes attributes) *string { return s.createNamed(s.name(""), attributes) }

func (s *suite) createFifo(more attributes) *string {
	all := attributes{"FifoQueue": "true"}
	maps.Copy(all, more)
	return s.createNamed(s.name(".fifo"), all)
}

func nameOf(url *string) string { return (*url)[strings.LastIndex(*url, "/")+1:] }

func (s *suite) attributes(url *string, wanted ...types.QueueAttributeName) attributes {
	input := &sqs.GetQueueAttributesInput{QueueUrl: url, AttributeNames: wanted}
	return Must(s.client.GetQueueAttributes(s.ctx, input)).Attributes
}

func (s *suite) arn(url *string) string {
	return s.attributes(url, types.QueueAttributeNameQueueArn)["QueueArn"]
}

// counts tells how many messages wait, are with somebody, and are delayed.
func (s *suite) counts(url *string) string {
	found := s.attributes(url, types.QueueAttributeNameAll)
	of := func(which string) string { return found["ApproximateNumberOfMessages"+which] }
	return of("") + " " + of("NotVisible") + " " + of("Delayed")
}

func (s *suite) send(url *string, body string) *sqs.SendMessageOutput {
	return Must(s.client.SendMessage(s.ctx, &sqs.SendMessageInput{QueueUrl: url, MessageBody: &body}))
}

// sendTo sends to a group of a FIFO queue, with an id to tell duplicates by unless that is empty.
func (s *suite) sendTo(url *string, group, body, id string) *sqs.SendMessageOutput {
	input := &sqs.SendMessageInput{QueueUrl: url, MessageBody: &body, MessageGroupId: &group}
	if id != "" {
		input.MessageDeduplicationId = &id
	}
	return Must(s.client.SendMessage(s.ctx, input))
}

// receive gives what one call gives, with all attributes.
func (s *suite) receive(url *string, count, waitSeconds, visibilitySeconds int32) []types.Message {
	return Must(s.client.ReceiveMessage(s.ctx, &sqs.ReceiveMessageInput{
		QueueUrl:                    url,
		MaxNumberOfMessages:         count,
		WaitTimeSeconds:             waitSeconds,
		VisibilityTimeout:           visibilitySeconds,
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})).Messages
}

// receiveAll gives so many messages, which may take several calls.
func (s *suite) receiveAll(url *string, count int, visibilitySeconds int32) (found []types.Message) {
	Until(s.ctx, strconv.Itoa(count)+" messages", func() bool {
		found = append(found, s.receive(url, int32(min(10, count-len(found))), 1, visibilitySeconds)...)
		return len(found) == count
	})
	return found
}

func (s *suite) isEmpty(url *string) {
	Equal("messages that come", 0, len(s.receive(url, 10, 0, 0)))
}

func (s *suite) remove(url *string, messages ...types.Message) {
	for _, message := range messages {
		Must(s.client.DeleteMessage(s.ctx, &sqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: message.ReceiptHandle}))
	}
}

func (s *suite) hide(url *string, message types.Message, seconds int32) error {
	_, err := s.client.ChangeMessageVisibility(s.ctx, &sqs.ChangeMessageVisibilityInput{
		QueueUrl: url, ReceiptHandle: message.ReceiptHandle, VisibilityTimeout: seconds,
	})
	return err
}

func bodies(messages []types.Message) string {
	found := make([]string, len(messages))
	for n, message := range messages {
		found[n] = *message.Body
	}
	return strings.Join(found, " ")
}

// sorted gives the bodies in the order of text.
func sorted(messages []types.Message) string {
	found := strings.Fields(bodies(messages))
	slices.Sort(found)
	return strings.Join(found, " ")
}

// is fails unless the error is of the SDK's type.
func is[E error](err error) E {
	var wanted E
	Check(errors.As(err, &wanted), "%v instead of a %T", err, wanted)
	return wanted
}

// code fails unless the error has this code.
func code(wanted string, err error) {
	Equal("error code", wanted, is[smithy.APIError](err).ErrorCode())
}

// --- the tests ---

func (s *suite) queuesComeAndGo() {
	name := s.name("")
	url := s.createNamed(name, nil)
	Equal("the URL", endpoint+"/"+account+"/"+name, *url)
	Equal("the URL, again", *url, *s.createNamed(name, nil))
	Equal("the URL that is found", *url, *Must(s.client.GetQueueUrl(s.ctx, &sqs.GetQueueUrlInput{QueueName: &name})).QueueUrl)
	listed := func() []string {
		return Must(s.client.ListQueues(s.ctx, &sqs.ListQueuesInput{QueueNamePrefix: &name})).QueueUrls
	}
	Check(slices.Contains(listed(), *url), "%s is not listed", *url)
	Must(s.client.DeleteQueue(s.ctx, &sqs.DeleteQueueInput{QueueUrl: url}))
	Check(!slices.Contains(listed(), *url), "%s is listed still", *url)
}

func (s *suite) listsInPages() {
	prefix := s.name("-page-")
	var urls, found []string
	for n := range 5 {
		urls = append(urls, *s.createNamed(prefix+strconv.Itoa(n), nil))
	}
	pages := 0
	paginator := sqs.NewListQueuesPaginator(s.client, &sqs.ListQueuesInput{QueueNamePrefix: &prefix, MaxResults: aws.Int32(2)})
	for ; paginator.HasMorePages(); pages++ {
		found = append(found, Must(paginator.NextPage(s.ctx)).QueueUrls...)
	}
	Equal("the queues of all pages", strings.Join(urls, " "), strings.Join(found, " "))
	Equal("pages", 3, pages)
}

func (s *suite) keepsAttributes() {
	url := s.create(attributes{"DelaySeconds": "3"})
	given := attributes{"VisibilityTimeout": "77", "ReceiveMessageWaitTimeSeconds": "2", "MaximumMessageSize": "2048"}
	Must(s.client.SetQueueAttributes(s.ctx, &sqs.SetQueueAttributesInput{QueueUrl: url, Attributes: given}))
	found := s.attributes(url, types.QueueAttributeNameAll)
	for name, value := range given {
		Equal(name, value, found[name])
	}
	Equal("DelaySeconds", "3", found["DelaySeconds"])
	Equal("MessageRetentionPeriod", "345600", found["MessageRetentionPeriod"])
	Equal("QueueArn", "arn:aws:sqs:us-east-1:"+account+":"+nameOf(url), found["QueueArn"])
	wrong := &sqs.SetQueueAttributesInput{QueueUrl: url, Attributes: attributes{"VisibilityTimeout": "43201"}}
	_, err := s.client.SetQueueAttributes(s.ctx, wrong)
	is[*types.InvalidAttributeValue](err)
}

func (s *suite) keepsTags() {
	url := s.create(nil)
	tags := func() attributes {
		return Must(s.client.ListQueueTags(s.ctx, &sqs.ListQueueTagsInput{QueueUrl: url})).Tags
	}
	given := attributes{"team": "ü", "stage": "test"}
	Must(s.client.TagQueue(s.ctx, &sqs.TagQueueInput{QueueUrl: url, Tags: given}))
	Check(maps.Equal(given, tags()), "%v instead of %v", tags(), given)
	Must(s.client.UntagQueue(s.ctx, &sqs.UntagQueueInput{QueueUrl: url, TagKeys: []string{"stage"}}))
	delete(given, "stage")
	Check(maps.Equal(given, tags()), "%v instead of %v", tags(), given)
}

func (s *suite) comesBackAsSent() {
	url := s.create(nil)
	body := strings.Repeat("line\r\n<&>\"' \t ünï 😀 ", 100)
	given := map[string]types.MessageAttributeValue{
		"text":   {DataType: aws.String("String"), StringValue: aws.String("ü\r\n<&>")},
		"number": {DataType: aws.String("Number"), StringValue: aws.String("-12.5")},
		"bytes":  {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255, 30}},
	}
	sent := Must(s.client.SendMessage(s.ctx, &sqs.SendMessageInput{QueueUrl: url, MessageBody: &body, MessageAttributes: given}))
	message := s.receiveAll(url, 1, 30)[0]
	Equal("the body", body, *message.Body)
	Equal("the id", *sent.MessageId, *message.MessageId)
	Equal("the digest of the attributes", *sent.MD5OfMessageAttributes, *message.MD5OfMessageAttributes)
	Check(reflect.DeepEqual(given, message.MessageAttributes), "other attributes come back")
	Equal("the count of receives", "1", message.Attributes["ApproximateReceiveCount"])
	at := time.UnixMilli(Must(strconv.ParseInt(message.Attributes["SentTimestamp"], 10, 64)))
	Check(time.Since(at).Abs() < time.Minute, "it was sent at %v", at)
	s.remove(url, message)
	Equal("the counts", "0 0 0", s.counts(url))
}

func (s *suite) batchesFailInPart() {
	url := s.create(attributes{"MaximumMessageSize": "1024"})
	var entries []types.SendMessageBatchRequestEntry
	for n := range 10 {
		body := strconv.Itoa(n)
		if n == 3 {
			body = strings.Repeat("x", 1025)
		}
		entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(n)), MessageBody: &body})
	}
	sent := Must(s.client.SendMessageBatch(s.ctx, &sqs.SendMessageBatchInput{QueueUrl: url, Entries: entries}))
	ids := ""
	for _, entry := range sent.Successful {
		ids += *entry.Id
	}
	Equal("what was sent", "012456789", ids)
	Equal("how many were not", 1, len(sent.Failed))
	failed := sent.Failed[0]
	Equal("what was not", "3 InvalidParameterValue true", fmt.Sprintf("%s %s %t", *failed.Id, *failed.Code, failed.SenderFault))
	messages := s.receiveAll(url, 9, 30)
	Equal("what comes", "0 1 2 4 5 6 7 8 9", sorted(messages))
	handles := []types.DeleteMessageBatchRequestEntry{{Id: aws.String("bad"), ReceiptHandle: aws.String("no handle")}}
	for n, message := range messages {
		handles = append(handles, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(n)), ReceiptHandle: message.ReceiptHandle})
	}
	deleted := Must(s.client.DeleteMessageBatch(s.ctx, &sqs.DeleteMessageBatchInput{QueueUrl: url, Entries: handles}))
	Equal("how many were deleted", 9, len(deleted.Successful))
	Equal("how many were not deleted", 1, len(deleted.Failed))
	Equal("what was not deleted", "bad ReceiptHandleIsInvalid", *deleted.Failed[0].Id+" "+*deleted.Failed[0].Code)
	Equal("the counts", "0 0 0", s.counts(url))
}

func (s *suite) errorsHaveTheirTypes() {
	name := s.name("-missing")
	missing := endpoint + "/" + account + "/" + name
	_, err := s.client.GetQueueUrl(s.ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	Equal("the words", "The specified queue does not exist.", is[*types.QueueDoesNotExist](err).ErrorMessage())
	code("AWS.SimpleQueueService.NonExistentQueue", err)
	_, err = s.client.SendMessage(s.ctx, &sqs.SendMessageInput{QueueUrl: &missing, MessageBody: aws.String("x")})
	is[*types.QueueDoesNotExist](err)
	_, err = s.client.ReceiveMessage(s.ctx, &sqs.ReceiveMessageInput{QueueUrl: &missing})
	is[*types.QueueDoesNotExist](err)

	url := s.create(attributes{"VisibilityTimeout": "5"})
	_, err = s.client.CreateQueue(s.ctx, &sqs.CreateQueueInput{
		QueueName: aws.String(nameOf(url)), Attributes: attributes{"VisibilityTimeout": "6"},
	})
	is[*types.QueueNameExists](err)
	_, err = s.client.DeleteMessage(s.ctx, &sqs.DeleteMessageInput{QueueUrl: url, ReceiptHandle: aws.String("x")})
	is[*types.ReceiptHandleIsInvalid](err)
	batch := func(count int, id func(int) string) error {
		input := &sqs.SendMessageBatchInput{QueueUrl: url, Entries: []types.SendMessageBatchRequestEntry{}}
		for n := range count {
			entry := types.SendMessageBatchRequestEntry{Id: aws.String(id(n)), MessageBody: aws.String("x")}
			input.Entries = append(input.Entries, entry)
		}
		_, err := s.client.SendMessageBatch(s.ctx, input)
		return err
	}
	is[*types.EmptyBatchRequest](batch(0, strconv.Itoa))
	is[*types.TooManyEntriesInBatchRequest](batch(11, strconv.Itoa))
	is[*types.BatchEntryIdsNotDistinct](batch(2, func(int) string { return "a" }))
	is[*types.InvalidBatchEntryId](batch(1, func(int) string { return "a b" }))
	Equal("the counts", "0 0 0", s.counts(url))
}

func (s *suite) longPollWakes() {
	url := s.create(nil)
	began := time.Now()
	type answer struct {
		*sqs.ReceiveMessageOutput
		error
	}
	answered := make(chan answer, 1)
	go func() {
		output, err := s.client.ReceiveMessage(s.ctx, &sqs.ReceiveMessageInput{QueueUrl: url, WaitTimeSeconds: 20})
		answered <- answer{output, err}
	}()
	// When a second poll ends without a message, the first is surely waiting.
	Equal("messages of an empty queue", 0, len(s.receive(url, 1, 1, 0)))
	Check(time.Since(began) > 900*time.Millisecond, "a poll of a second ended after %v", time.Since(began))
	s.send(url, "late")
	got := <-answered
	Equal("what came", "late", bodies(Must(got.ReceiveMessageOutput, got.error).Messages))
	Check(time.Since(began) < 15*time.Second, "the poll ended after %v", time.Since(began))
}

func (s *suite) cancelledPollTakesNothing() {
	url := s.create(nil)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := s.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: url, WaitTimeSeconds: 20})
		ended <- err
	}()
	Equal("messages of an empty queue", 0, len(s.receive(url, 1, 1, 0)))
	cancel()
	Fails("the end of the poll", context.Canceled, <-ended)
	s.send(url, "x")
	Equal("the count of receives", "1", s.receiveAll(url, 1, 30)[0].Attributes["ApproximateReceiveCount"])
}

func (s *suite) visibilityChanges() {
	url := s.create(attributes{"VisibilityTimeout": "600"})
	s.send(url, "x")
	first := s.receiveAll(url, 1, 0)[0]
	s.isEmpty(url)
	Fails("a change to no seconds", nil, s.hide(url, first, 0))
	second := s.receiveAll(url, 1, 0)[0]
	Equal("the count of receives", "2", second.Attributes["ApproximateReceiveCount"])
	code("InvalidParameterValue", s.hide(url, first, 0))
	began := time.Now()
	Fails("a change to a second", nil, s.hide(url, second, 1))
	third := s.receiveAll(url, 1, 0)[0]
	Check(time.Since(began) > 900*time.Millisecond, "it came back after %v", time.Since(began))
	s.remove(url, third)
	Equal("the counts", "0 0 0", s.counts(url))
}

func (s *suite) delays() {
	url := s.create(nil)
	delayed := &sqs.SendMessageInput{QueueUrl: url, MessageBody: aws.String("delayed"), DelaySeconds: 2}
	Must(s.client.SendMessage(s.ctx, delayed))
	s.send(url, "now")
	Equal("the counts", "1 0 1", s.counts(url))
	Equal("what comes", "now delayed", bodies(s.receiveAll(url, 2, 30)))
}

func (s *suite) fifoKeepsOrder() {
	url := s.createFifo(nil)
	var numbers []string
	for n := range 6 {
		group := "ab"[n%2 : n%2+1]
		sent := s.sendTo(url, group, group+strconv.Itoa(n/2), strconv.Itoa(n))
		numbers = append(numbers, *sent.SequenceNumber)
	}
	Check(slices.IsSorted(numbers), "the sequence numbers are %v", numbers)
	first := s.receive(url, 1, 0, 0)
	Equal("the first message", "a0", bodies(first))
	Equal("its group", "a", first[0].Attributes["MessageGroupId"])
	Equal("its sequence number", numbers[0], first[0].Attributes["SequenceNumber"])
	others := s.receive(url, 10, 0, 0)
	Equal("the other group", "b0 b1 b2", bodies(others))
	s.isEmpty(url)
	s.remove(url, first...)
	rest := s.receive(url, 10, 0, 0)
	Equal("the rest of the first group", "a1 a2", bodies(rest))
	s.remove(url, append(rest, others...)...)
	Equal("the counts", "0 0 0", s.counts(url))
}

func (s *suite) fifoDeduplicates() {
	url := s.createFifo(attributes{"ContentBasedDeduplication": "true"})
	first := s.sendTo(url, "g", "same", "")
	Equal("the id of one with the same body", *first.MessageId, *s.sendTo(url, "g", "same", "").MessageId)
	own := s.sendTo(url, "g", "same", "own")
	Check(*own.MessageId != *first.MessageId, "an own id makes no other message of it")
	Equal("the id of one with the same id", *own.MessageId, *s.sendTo(url, "g", "other", "own").MessageId)
	Equal("what comes", "same same", bodies(s.receive(url, 10, 0, 0)))
	_, err := s.client.SendMessage(s.ctx, &sqs.SendMessageInput{QueueUrl: url, MessageBody: aws.String("x")})
	code("MissingParameter", err)
}

func (s *suite) deadLetters() {
	dead := s.create(nil)
	policy := Must(json.Marshal(map[string]any{"deadLetterTargetArn": s.arn(dead), "maxReceiveCount": 2}))
	url := s.create(attributes{"RedrivePolicy": string(policy), "VisibilityTimeout": "0"})
	sources := Must(s.client.ListDeadLetterSourceQueues(s.ctx, &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: dead}))
	Equal("the sources", *url, strings.Join(sources.QueueUrls, " "))
	sent := s.send(url, "poison")
	for _, count := range []string{"1", "2"} {
		Equal("the count of receives", count, s.receiveAll(url, 1, 0)[0].Attributes["ApproximateReceiveCount"])
	}
	s.isEmpty(url)
	letter := s.receiveAll(dead, 1, 30)[0]
	Equal("the dead letter", "poison "+*sent.MessageId, *letter.Body+" "+*letter.MessageId)
	Equal("where it comes from", s.arn(url), letter.Attributes["DeadLetterQueueSourceArn"])
	Fails("giving it back", nil, s.hide(dead, letter, 0))
	source := aws.String(s.arn(dead))
	Must(s.client.StartMessageMoveTask(s.ctx, &sqs.StartMessageMoveTaskInput{SourceArn: source}))
	Until(s.ctx, "the end of the move task", func() bool {
		tasks := Must(s.client.ListMessageMoveTasks(s.ctx, &sqs.ListMessageMoveTasksInput{SourceArn: source})).Results
		return len(tasks) == 1 && *tasks[0].Status == "COMPLETED" && tasks[0].ApproximateNumberOfMessagesMoved == 1
	})
	Equal("the counts of both", "0 0 0, 1 0 0", s.counts(dead)+", "+s.counts(url))
}

func (s *suite) purges() {
	url := s.create(nil)
	for n := range 3 {
		s.send(url, strconv.Itoa(n))
	}
	Must(s.client.PurgeQueue(s.ctx, &sqs.PurgeQueueInput{QueueUrl: url}))
	Equal("the counts", "0 0 0", s.counts(url))
	_, err := s.client.PurgeQueue(s.ctx, &sqs.PurgeQueueInput{QueueUrl: url})
	is[*types.PurgeQueueInProgress](err)
	s.send(url, "after")
	Equal("what comes", "after", bodies(s.receiveAll(url, 1, 30)))
}

func (s *suite) signaturesAreVerified() {
	stranger := newClient(config.WithCredentialsProvider(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: "wrong"}, nil
	})))
	_, err := stranger.ListQueues(s.ctx, &sqs.ListQueuesInput{})
	code("SignatureDoesNotMatch", err)
}

func (s *suite) consumersShare() {
	url := s.create(nil)
	for n := range 20 {
		var entries []types.SendMessageBatchRequestEntry
		for m := range 10 {
			id := strconv.Itoa(m)
			entries = append(entries, types.SendMessageBatchRequestEntry{Id: &id, MessageBody: aws.String(strconv.Itoa(1000 + 10*n + m))})
		}
		Must(s.client.SendMessageBatch(s.ctx, &sqs.SendMessageBatchInput{QueueUrl: url, Entries: entries}))
	}
	type share struct {
		messages []types.Message
		err      error
	}
	shares := make(chan share)
	for range 3 {
		go func() {
			var own share
			for {
				var got *sqs.ReceiveMessageOutput
				got, own.err = s.client.ReceiveMessage(s.ctx, &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: 10})
				if own.err != nil || len(got.Messages) == 0 {
					break
				}
				own.messages = append(own.messages, got.Messages...)
			}
			shares <- own
		}()
	}
	var all []types.Message
	for range 3 {
		own := <-shares
		all = append(all, Must(own.messages, own.err)...)
	}
	var wanted []string
	for n := range 200 {
		wanted = append(wanted, strconv.Itoa(1000+n))
	}
	Equal("what all consumers have", strings.Join(wanted, " "), sorted(all))
	s.remove(url, all...)
	Equal("the counts", "0 0 0", s.counts(url))
}

func (s *suite) survivesACrash() {
	url, fifo := s.create(nil), s.createFifo(attributes{"ContentBasedDeduplication": "true"})
	var sent []string
	for n := range 30 {
		sent = append(sent, strconv.Itoa(100+n))
		s.send(url, sent[n])
	}
	once := s.sendTo(fifo, "g", "once", "")
	deleted := s.receiveAll(url, 10, 30)
	held := s.receiveAll(url, 10, 600)
	s.remove(url, deleted...)
	Equal("the counts", "10 10 0", s.counts(url))
	Fails("the restart", nil, Restart(s.ctx))
	Until(s.ctx, "an answer of the queue", func() bool {
		input := &sqs.GetQueueAttributesInput{QueueUrl: url, AttributeNames: []types.QueueAttributeName{"All"}}
		_, err := s.client.GetQueueAttributes(s.ctx, input)
		return err == nil
	})
	Equal("the counts after the crash", "10 10 0", s.counts(url))
	rest := s.receiveAll(url, 10, 600)
	s.isEmpty(url)
	Equal("all messages", strings.Join(sent, " "), sorted(slices.Concat(deleted, held, rest)))
	s.remove(url, append(held, rest...)...)
	Equal("the counts when all are deleted", "0 0 0", s.counts(url))
	Equal("the id of a duplicate", *once.MessageId, *s.sendTo(fifo, "g", "once", "").MessageId)
	Equal("what comes of both", "once", bodies(s.receive(fifo, 10, 0, 0)))
}
