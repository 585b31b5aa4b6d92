package suite

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	partitions = 6
	// expiry is the shortest session that Kafka allows; never is far longer than a test.
	expiry = 6 * time.Second
	never  = 5 * time.Minute
)

// send produces some records to each partition; their values are unique by the round.
func send(client Client, topic, round string) []string {
	var sent []string
	for partition := range int32(partitions) {
		var values []string
		for n := range 20 {
			values = append(values, fmt.Sprintf("%s %d/%d", round, partition, n))
		}
		client.Send(topic, partition, values...)
		sent = append(sent, values...)
	}
	return sent
}

// Shares proves that three members own all, and that those who stay own all after one has left and one was killed.
func Shares(ctx context.Context, client Client, name string) {
	topic, group := client.Create(name, partitions), NewGroup()
	// Only a member that leaves politely is gone before its session ends.
	stays := Membership{Group: topic, Topic: topic, Session: never}
	killed := Membership{Group: topic, Topic: topic, Session: expiry}
	defer client.Join(stays, group.Member("stays"))()
	leave := client.Join(stays, group.Member("leaves"))
	defer leave()
	child := group.Child(ctx, "killed", killed)
	defer child.Kill()

	group.SharedBy(ctx, partitions, "stays", "leaves", "killed")
	group.Receives(ctx, send(client, topic, "three"))
	leave()
	group.SharedBy(ctx, partitions, "stays", "killed")
	group.Receives(ctx, send(client, topic, "two"))
	child.Kill()
	group.SharedBy(ctx, partitions, "stays")
	group.Receives(ctx, send(client, topic, "one"))
}

// Returns proves that a static member gets its partitions back without a rebalance when it restarts within its session,
// and that the rest own all when it is removed by name.
func Returns(ctx context.Context, client Client, name string, remove func(group, instance string)) {
	topic, group := client.Create(name, partitions), NewGroup()
	membership := func(instance string) Membership {
		return Membership{Group: topic, Topic: topic, Instance: instance, Session: never}
	}
	defer client.Join(membership("stays"), group.Member("stays"))()
	leave := client.Join(membership("returns"), group.Member("returns"))
	defer leave()
	group.SharedBy(ctx, partitions, "stays", "returns")
	owned, before := group.Owned("returns"), group.Generation("returns")
	Equal("generation of the other", before, group.Generation("stays"))
	group.Receives(ctx, send(client, topic, "before"))
	kept := group.Lost("stays")

	leave()
	away := send(client, topic, "away")
	leave = client.Join(membership("returns"), group.Member("returns"))
	defer leave()
	group.SharedBy(ctx, partitions, "stays", "returns")
	group.Receives(ctx, away)
	group.Receives(ctx, send(client, topic, "after"))
	Check(slices.Equal(owned, group.Owned("returns")), "it owns %v instead of %v", group.Owned("returns"), owned)
	Equal("generation", before, group.Generation("returns"))
	Equal("generation of the other", before, group.Generation("stays"))
	Check(slices.Equal(kept, group.Lost("stays")), "the other lost %v", group.Lost("stays"))

	leave()
	remove(topic, "returns")
	group.SharedBy(ctx, partitions, "stays")
	group.Receives(ctx, send(client, topic, "removed"))
}

// Cooperates proves that a member which joins takes from the first one what it gets and nothing else.
func Cooperates(ctx context.Context, client Client, name string) {
	topic, group := client.Create(name, partitions), NewGroup()
	membership := Membership{Group: topic, Topic: topic, Session: never, Cooperative: true}
	defer client.Join(membership, group.Member("first"))()
	group.SharedBy(ctx, partitions, "first")
	group.Receives(ctx, send(client, topic, "one"))
	defer client.Join(membership, group.Member("second"))()
	group.SharedBy(ctx, partitions, "first", "second")
	group.Receives(ctx, send(client, topic, "two"))
	Check(slices.Equal(group.Lost("first"), group.Owned("second")),
		"the first lost %v, the second has %v", group.Lost("first"), group.Owned("second"))
	Equal("partitions of the second", partitions/2, len(group.Owned("second")))
}

// GoesOn proves that a group whose members have left goes on at its commits after the broker was killed.
func GoesOn(ctx context.Context, client Client, name string) {
	topic, group := client.Create(name, partitions), NewGroup()
	membership := Membership{Group: topic, Topic: topic, Session: never}
	leave := client.Join(membership, group.Member("before"))
	defer leave()
	group.Receives(ctx, send(client, topic, "before"))
	leave()
	err := Restart(ctx)
	Check(err == nil, "restart: %v", err)
	// What was received before would be noted as received once more.
	defer client.Join(membership, group.Member("after"))()
	group.SharedBy(ctx, partitions, "after")
	group.Receives(ctx, send(client, topic, "after"))
}

// Survives proves that a live group outlives its broker, and takes in a member that joins while the broker restarts.
func Survives(ctx context.Context, client Client, name string) {
	topic, group := client.Create(name, partitions), NewGroup()
	// A member that a client gave up together with its connection must be gone soon.
	membership := Membership{Group: topic, Topic: topic, Session: expiry}
	defer client.Join(membership, group.Member("first"))()
	defer client.Join(membership, group.Member("second"))()
	group.SharedBy(ctx, partitions, "first", "second")
	group.Receives(ctx, send(client, topic, "before"))

	restarted := make(chan error, 1)
	go func() { restarted <- Restart(ctx) }()
	defer client.Join(membership, group.Member("third"))()
	err := <-restarted
	Check(err == nil, "restart: %v", err)
	group.SharedBy(ctx, partitions, "first", "second", "third")
	group.Receives(ctx, send(client, topic, "after"))
}
