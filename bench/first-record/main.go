// How long a new group of one takes from subscribing to its first record, with franz-go as it comes: a topic with a
// record in it, a client that has never spoken to the broker, and on a fresh broker a coordinator that does not exist yet.
//
//	first-record [-share] HOST:PORT TOPIC GROUP...
//
// prints the milliseconds of each group, one after the other. With -share they are share groups, which are told before to begin with
// the earliest record.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka's controller answers a change of a group's config; its broker may learn of it a little later.
const settled = 500 * time.Millisecond

func main() {
	share := flag.Bool("share", false, "share groups")
	flag.Parse()
	if flag.NArg() < 3 {
		fail(fmt.Errorf("usage: %s [-share] HOST:PORT TOPIC GROUP...", os.Args[0]))
	}
	bootstrap, topic, groups := flag.Arg(0), flag.Arg(1), flag.Args()[2:]
	if *share {
		if err := beginEarliest(bootstrap, groups); err != nil {
			fail(err)
		}
		time.Sleep(settled)
	}
	for _, group := range groups {
		membership := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
		if *share {
			membership = []kgo.Opt{kgo.ShareGroup(group)}
		}
		took, err := firstRecord(bootstrap, topic, membership)
		if err != nil {
			fail(fmt.Errorf("%s: %w", group, err))
		}
		fmt.Printf("%.1f\n", float64(took.Microseconds())/1000)
	}
}

// firstRecord is the time from the making of a client until it has a record.
func firstRecord(bootstrap, topic string, membership []kgo.Opt) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	client, err := kgo.NewClient(append(membership, kgo.SeedBrokers(bootstrap), kgo.ConsumeTopics(topic))...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return 0, err
		}
		if fetches.NumRecords() > 0 {
			return time.Since(began), nil
		}
	}
}

// beginEarliest has share groups begin with the earliest record, through a client of its own.
func beginEarliest(bootstrap string, groups []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, group := range groups {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Op, config.Value = "share.auto.offset.reset", kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr("earliest")
		resource := kmsg.NewIncrementalAlterConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
		resource.Configs = append(resource.Configs, config)
		request.Resources = append(request.Resources, resource)
	}
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, resource := range answer.Resources {
		if err := kerr.ErrorForCode(resource.ErrorCode); err != nil {
			return fmt.Errorf("config of %s: %w", resource.ResourceName, err)
		}
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
