// NATS JetStream as a queue: a server that keeps its messages in files, and a driver that does what `ottla bench queue` does and
// reports it in the same words.
//
//	jetstream serve HOST:PORT DIR                                            until it is ended
//	jetstream drive HOST:PORT PID CLIENTS BATCH BODY_BYTES WARM_UP SECONDS   PID is the server's; prints one line of JSON
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	name = "bench"
	// How long a client waits for what has been sent.
	patience = 10 * time.Second
	// Of the CPU times in /proc.
	ticksPerSecond = 100
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "jetstream:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) == 3 && words[0] == "serve" {
		return serve(words[1], words[2])
	}
	if len(words) == 8 && words[0] == "drive" {
		var numbers [6]int
		for i, word := range words[2:] {
			number, err := strconv.Atoi(word)
			if err != nil {
				return err
			}
			numbers[i] = number
		}
		return drive(words[1], numbers)
	}
	return errors.New("usage: jetstream serve HOST:PORT DIR | jetstream drive HOST:PORT PID CLIENTS BATCH BODY_BYTES WARM_UP SECONDS")
}

func serve(address, directory string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	nats, err := server.NewServer(&server.Options{Host: host, Port: number, JetStream: true, StoreDir: directory})
	if err != nil {
		return err
	}
	nats.Start()
	nats.WaitForShutdown()
	return nil
}

// What is counted while the window is open.
type tally struct {
	messages, requests   atomic.Int64
	windowOpen, runEnded atomic.Bool
}

func drive(address string, numbers [6]int) error {
	pid, clients, batch, bodyBytes := numbers[0], numbers[1], numbers[2], numbers[3]
	warmUp, seconds := time.Duration(numbers[4])*time.Second, time.Duration(numbers[5])*time.Second
	background := context.Background()
	var counted tally
	ended := make(chan error, clients)
	for range clients {
		client, err := connect(background, address)
		if err != nil {
			return err
		}
		defer client.connection.Close()
		go func() { ended <- client.goRound(background, batch, make([]byte, bodyBytes), &counted) }()
	}
	time.Sleep(warmUp)
	began, before, err := now(pid)
	if err != nil {
		return err
	}
	counted.windowOpen.Store(true)
	time.Sleep(seconds)
	counted.windowOpen.Store(false)
	over, after, err := now(pid)
	counted.runEnded.Store(true)
	for range clients {
		err = errors.Join(err, <-ended)
	}
	if err != nil {
		return err
	}
	elapsed, messages := over.Sub(began).Seconds(), float64(counted.messages.Load())
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"messages":                       counted.messages.Load(),
		"seconds":                        elapsed,
		"messages_per_second":            messages / elapsed,
		"requests_per_second":            float64(counted.requests.Load()) / elapsed,
		"messages_per_server_cpu_second": messages / (after - before),
	})
}

// awake connects so that reading never sleeps, as the driver of the others never does: what a server pays for waking its clients is
// to be no part of what it is measured by.
type awake struct{}

func (awake) Dial(network, address string) (net.Conn, error) {
	connection, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	raw, err := connection.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, connection.Close())
	}
	return &polled{connection, raw}, nil
}

type polled struct {
	net.Conn
	raw syscall.RawConn
}

func (connection *polled) Read(into []byte) (int, error) {
	for {
		read, failure := 0, error(nil)
		err := connection.raw.Read(func(descriptor uintptr) bool {
			read, failure = syscall.Read(int(descriptor), into)
			return true
		})
		switch {
		case err != nil:
			return 0, err
		case failure == syscall.EAGAIN || failure == syscall.EINTR:
			runtime.Gosched()
		case failure != nil:
			return 0, failure
		case read == 0 && len(into) > 0:
			return 0, io.EOF
		default:
			return read, nil
		}
	}
}

type client struct {
	connection *nats.Conn
	stream     jetstream.JetStream
	consumer   jetstream.Consumer
}

// connect makes the queue if it is not there: messages are gone once they are acknowledged, and all clients share one consumer.
func connect(context context.Context, address string) (*client, error) {
	connection, err := nats.Connect("nats://"+address, nats.SetCustomDialer(awake{}))
	if err != nil {
		return nil, err
	}
	stream, err := jetstream.New(connection)
	if err != nil {
		return nil, err
	}
	queue := jetstream.StreamConfig{Name: name, Subjects: []string{name}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy}
	if _, err := stream.CreateOrUpdateStream(context, queue); err != nil {
		return nil, err
	}
	workers := jetstream.ConsumerConfig{Durable: name, AckPolicy: jetstream.AckExplicitPolicy}
	consumer, err := stream.CreateOrUpdateConsumer(context, name, workers)
	if err != nil {
		return nil, err
	}
	return &client{connection, stream, consumer}, nil
}

// goRound sends a batch, receives one, and acknowledges each of its messages, over and over.
func (client *client) goRound(context context.Context, batch int, body []byte, counted *tally) error {
	sent := make([]jetstream.PubAckFuture, batch)
	for !counted.runEnded.Load() {
		for i := range sent {
			future, err := client.stream.PublishAsync(name, body)
			if err != nil {
				return err
			}
			sent[i] = future
		}
		for _, future := range sent {
			select {
			case <-future.Ok():
			case err := <-future.Err():
				return err
			}
		}
		// As many have been sent as are asked for, so that nobody waits for nothing.
		received, err := client.consumer.Fetch(batch, jetstream.FetchMaxWait(patience))
		if err != nil {
			return err
		}
		messages := int64(0)
		for message := range received.Messages() {
			if err := message.Ack(); err != nil {
				return err
			}
			messages++
		}
		if err := received.Error(); err != nil {
			return err
		}
		if counted.windowOpen.Load() {
			counted.messages.Add(messages)
			counted.requests.Add(int64(batch) + 1 + messages)
		}
	}
	return nil
}

// now gives the time, and the seconds of user and system CPU time that a process has taken.
func now(pid int) (time.Time, float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, 0, err
	}
	// After the command, which may have blanks in it: the third field of all is the first here, and the times are the 14th and 15th.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] {
		number, err := strconv.Atoi(field)
		if err != nil {
			return time.Time{}, 0, err
		}
		ticks += number
	}
	return time.Now(), float64(ticks) / ticksPerSecond, nil
}
