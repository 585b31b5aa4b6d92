// How long a new group of one takes from subscribing to its first record, with franz-go as it comes: a topic with a
// record in it, a client that has never spoken to the broker, and on a fresh broker a coordinator that does not exist yet.
//
//	first-record HOST:PORT TOPIC GROUP
//
// prints the milliseconds.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: %s HOST:PORT TOPIC GROUP", os.Args[0]))
	}
	bootstrap, topic, group := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	began := time.Now()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		fail(err)
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			fail(err)
		}
		if fetches.NumRecords() > 0 {
			break
		}
	}
	fmt.Printf("%.1f\n", float64(time.Since(began).Microseconds())/1000)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
