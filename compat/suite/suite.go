// Package suite is what the Go suites share: tests and their lines, assertions, a broker that can be crashed, and in
// group.go the members of a consumer group.
package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// deadline bounds each test: whatever waits, waits on the test's context.
const deadline = 60 * time.Second

var (
	// Bootstrap is host:port of the broker.
	Bootstrap = os.Getenv("BOOTSTRAP")
	// Broker is the command that takes `restart`: SIGKILL, then a start on the same port and data. Empty for a broker
	// that is not ours.
	Broker = os.Getenv("BROKER")
	// Start is where the timestamps of a test begin: a whole second, far enough back that no broker finds a record in the
	// future, and well within 24 hours, after which Kafka forgets a producer by the times of its records.
	Start = time.Now().Truncate(time.Second).Add(-time.Hour)
)

// Suite runs the tests of one client.
type Suite struct {
	// Prefix is that of the names of this run's topics and groups.
	Prefix string
	client string
	failed atomic.Bool
}

// Test is a sentence and the function that proves it. It fails by Failf.
type Test struct {
	Sentence string
	Run      func(context.Context)
}

// New ends the program if there is no broker.
func New(client string) *Suite {
	if Bootstrap == "" {
		fmt.Fprintln(os.Stderr, "BOOTSTRAP is not set")
		os.Exit(2)
	}
	return &Suite{client: client, Prefix: client + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"}
}

// Test runs one test and prints its line.
func (s *Suite) Test(sentence string, test func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	defer func() {
		switch why := recover().(type) {
		case nil:
			fmt.Println("PASS", s.client, sentence)
		case failure:
			s.failed.Store(true)
			fmt.Printf("FAIL %s %s: %s\n", s.client, sentence, strings.ReplaceAll(string(why), "\n", " "))
		default:
			panic(why)
		}
	}()
	test(ctx)
}

// Together runs tests at the same time; their lines come in the order in which they end.
func (s *Suite) Together(tests ...Test) {
	var running sync.WaitGroup
	for _, test := range tests {
		running.Go(func() { s.Test(test.Sentence, test.Run) })
	}
	running.Wait()
}

// End ends the program, with 1 if a test has failed.
func (s *Suite) End() {
	if s.failed.Load() {
		os.Exit(1)
	}
	os.Exit(0)
}

// failure is the reason of a failed test.
type failure string

// Failf ends the test. It must be called by the test's own goroutine, as all that follows here.
func Failf(format string, arguments ...any) {
	panic(failure(fmt.Sprintf(format, arguments...)))
}

// Must passes on a value that came without an error.
func Must[T any](value T, err error) T {
	if err != nil {
		Failf("%v", err)
	}
	return value
}

// Check fails with the message unless the condition holds.
func Check(condition bool, format string, arguments ...any) {
	if !condition {
		Failf(format, arguments...)
	}
}

// Equal fails unless both are the same.
func Equal[T comparable](what string, want, got T) {
	Check(want == got, "%s: %v instead of %v", what, got, want)
}

// Fails fails unless the error is the one wanted.
func Fails(what string, want, got error) {
	Check(errors.Is(got, want), "%s: %v instead of %v", what, got, want)
}

// Until asks again until it is so: what an admin call changes may take a moment to be seen.
func Until(ctx context.Context, what string, condition func() bool) {
	for !condition() {
		Check(ctx.Err() == nil, "%s is not seen in time", what)
	}
}

// Restart kills the broker, starts it again and returns when it serves.
func Restart(ctx context.Context) error {
	restart := exec.CommandContext(ctx, Broker, "restart")
	restart.Stdout, restart.Stderr = os.Stderr, os.Stderr
	return restart.Run()
}
