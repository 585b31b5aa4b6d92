package suite

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Membership says how a member joins.
type Membership struct {
	Group, Topic string
	// Instance is the group.instance.id of a static member; empty for a dynamic one.
	Instance    string
	Session     time.Duration
	Cooperative bool
}

// Client is what the scenarios need of a client. It waits on the context of its test.
type Client interface {
	// Create makes a topic and returns its full name.
	Create(topic string, partitions int32) string
	// Send produces to one partition and waits for the acknowledgements.
	Send(topic string, partition int32, values ...string)
	// Join makes a member that starts at the committed offset or else at the first record, and that commits records
	// before it reports them. The function returned ends it as a client ends that is shut down.
	Join(membership Membership, member Member) (leave func())
}

// Event is what a member reports: what it got, gave up or received, or what went wrong.
type Event struct {
	Generation        int32
	Assigned, Revoked []int32
	Received          []string
	Failed            string
}

// Member takes the reports of one member of a group.
type Member struct{ report func(Event) }

// Assigned reports partitions that the member has got in addition to those it owns.
func (m Member) Assigned(generation int32, partitions []int32) {
	m.report(Event{Generation: generation, Assigned: partitions})
}

// Revoked reports partitions that the member owns no longer; it must return before the client lets others have them.
func (m Member) Revoked(partitions []int32) { m.report(Event{Revoked: partitions}) }

// Received reports the values of records that are committed.
func (m Member) Received(values ...string) { m.report(Event{Received: values}) }

// Failed reports an error that should not be.
func (m Member) Failed(err error) { m.report(Event{Failed: err.Error()}) }

// Group knows who owns what and what has been received. It notes when two own a partition at the same time.
type Group struct {
	mutex      sync.Mutex
	changed    chan struct{} // closed at a change and then replaced
	owners     map[int32]string
	lost       map[string][]int32
	generation map[string]int32
	received   map[string]int
	wrong      string
}

// NewGroup has no members.
func NewGroup() *Group {
	return &Group{
		changed:    make(chan struct{}),
		owners:     map[int32]string{},
		lost:       map[string][]int32{},
		generation: map[string]int32{},
		received:   map[string]int{},
	}
}

// Member takes the reports of a member in this process.
func (g *Group) Member(name string) Member {
	return Member{func(event Event) { g.note(name, event) }}
}

func (g *Group) note(name string, event Event) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, partition := range event.Assigned {
		if owner, owned := g.owners[partition]; owned {
			g.wrong = fmt.Sprintf("%s gets partition %d, which is %s's", name, partition, owner)
		}
		g.owners[partition] = name
	}
	if event.Generation > 0 {
		g.generation[name] = event.Generation
	}
	for _, partition := range event.Revoked {
		if g.owners[partition] != name {
			g.wrong = fmt.Sprintf("%s loses partition %d, which is not its own", name, partition)
		}
		delete(g.owners, partition)
		g.lost[name] = append(g.lost[name], partition)
	}
	for _, value := range event.Received {
		g.received[value]++
		if g.received[value] > 1 {
			g.wrong = fmt.Sprintf("%s receives %q once more", name, value)
		}
	}
	if event.Failed != "" {
		g.wrong = name + ": " + event.Failed
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// until waits for a condition, which is asked with the mutex held.
func (g *Group) until(ctx context.Context, what string, condition func() bool) {
	for {
		g.mutex.Lock()
		met, changed, wrong := condition(), g.changed, g.wrong
		state := fmt.Sprintf("owners %v, %d values received", g.owners, len(g.received))
		g.mutex.Unlock()
		Check(wrong == "", "%s", wrong)
		if met {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			Failf("not in time: %s; %s", what, state)
		}
	}
}

// SharedBy waits until each partition has an owner and each of the members, nobody else, owns some.
func (g *Group) SharedBy(ctx context.Context, partitions int, members ...string) {
	slices.Sort(members)
	g.until(ctx, fmt.Sprintf("%v share %d partitions", members, partitions), func() bool {
		owners := slices.Compact(slices.Sorted(maps.Values(g.owners)))
		return len(g.owners) == partitions && slices.Equal(owners, members)
	})
}

// Owned are the partitions of a member, in order.
func (g *Group) Owned(name string) []int32 {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	var owned []int32
	for partition, owner := range g.owners {
		if owner == name {
			owned = append(owned, partition)
		}
	}
	slices.Sort(owned)
	return owned
}

// Lost are the partitions that a member has ever given up, in order.
func (g *Group) Lost(name string) []int32 {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return slices.Sorted(slices.Values(g.lost[name]))
}

// Generation is that of a member's last assignment.
func (g *Group) Generation(name string) int32 {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.generation[name]
}

// Receives waits until all the values are there. More often than once they may never come.
func (g *Group) Receives(ctx context.Context, values []string) {
	g.until(ctx, fmt.Sprintf("%d values from %q on are received", len(values), values[0]), func() bool {
		return !slices.ContainsFunc(values, func(value string) bool { return g.received[value] == 0 })
	})
}

// Child is a member in a process of its own.
type Child struct {
	process *exec.Cmd
	name    string
	group   *Group
	drained chan struct{}
}

// Child starts this program as a member; RunChild is its other end.
func (g *Group) Child(ctx context.Context, name string, membership Membership) *Child {
	process := exec.CommandContext(ctx, Must(os.Executable()), "member", string(Must(json.Marshal(membership))))
	process.Stderr = os.Stderr
	answers, reports := Must(process.StdinPipe()), Must(process.StdoutPipe())
	if err := process.Start(); err != nil {
		Failf("child: %v", err)
	}
	child := &Child{process, name, g, make(chan struct{})}
	go func() {
		defer close(child.drained)
		for lines := json.NewDecoder(reports); ; {
			var event Event
			if lines.Decode(&event) != nil {
				return
			}
			g.note(name, event)
			// The child waits for this, so that its reports come in order with those of others.
			fmt.Fprintln(answers)
		}
	}()
	return child
}

// Kill ends the child by SIGKILL. What it owned has no owner then.
func (c *Child) Kill() {
	c.process.Process.Kill()
	<-c.drained
	c.process.Wait()
	c.group.mutex.Lock()
	defer c.group.mutex.Unlock()
	maps.DeleteFunc(c.group.owners, func(_ int32, owner string) bool { return owner == c.name })
}

// RunChild is a member's whole life if this process is the child of a suite; else it returns at once.
func RunChild(client Client) {
	if len(os.Args) < 3 || os.Args[1] != "member" {
		return
	}
	var membership Membership
	if err := json.Unmarshal([]byte(os.Args[2]), &membership); err != nil {
		panic(err)
	}
	var mutex sync.Mutex
	answers := bufio.NewReader(os.Stdin)
	client.Join(membership, Member{func(event Event) {
		mutex.Lock()
		defer mutex.Unlock()
		line, err := json.Marshal(event)
		if err == nil {
			_, err = fmt.Println(string(line))
		}
		if err == nil {
			_, err = answers.ReadString('\n')
		}
		if err != nil {
			os.Exit(1) // the suite is gone
		}
	}})
	select {}
}
