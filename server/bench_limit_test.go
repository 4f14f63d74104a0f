package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsRole is a JetStream with as many messages of the size as it is told, in the folder.
func natsRole() {
	var count, size int
	fmt.Sscan(os.Args[1], &count)
	fmt.Sscan(os.Args[2], &size)
	srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: os.Args[3]})
	if err != nil {
		panic(err)
	}
	srv.Start()
	defer srv.Shutdown()
	srv.ReadyForConnections(10 * time.Second)
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"ev.>"}})
	}
	for i := 0; i < count && err == nil; i++ {
		// The headers of ours.
		_, err = js.PublishMsgAsync(&nats.Msg{Subject: "ev.1.dev.p07.meta.whatsapp_business_account.messages.message", Data: make([]byte, size), Header: nats.Header{
			"Nats-Msg-Id": {fmt.Sprintf("%026d", i)}, "Eventrelay-Journal": {"bench"}, "Eventrelay-Record": {strconv.Itoa(i)}, "Eventrelay-Item": {"0"},
			"Eventrelay-Received": {strconv.FormatInt(time.Now().UnixNano(), 10)},
		}})
	}
	if err != nil {
		panic(err)
	}
	<-js.PublishAsyncComplete()
	fmt.Println(srv.ClientURL(), "-")
	obey(map[string]func(int) string{})
}

// orderedConsumer reads all messages and returns how many a second.
func orderedConsumer(b *testing.B, url string, count int) float64 {
	b.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begin := time.Now()
	consumer, err := js.OrderedConsumer(ctx, "EVENTS", jetstream.OrderedConsumerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	read, done := 0, make(chan struct{})
	consuming, err := consumer.Consume(func(jetstream.Msg) {
		if read++; read == count {
			close(done)
		}
	}, jetstream.PullMaxMessages(5000)) // ten times the default, which is slower
	if err != nil {
		b.Fatal(err)
	}
	defer consuming.Stop()
	select {
	case <-done:
	case <-ctx.Done():
		b.Fatalf("%d of %d messages", read, count)
	}
	return float64(count) / time.Since(begin).Seconds()
}
