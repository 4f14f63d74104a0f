package main

import (
	"context"
	"crypto/hmac"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
)

// fanoutRole is the least that takes signed posts, makes each durable and hands it to every stream: no queue but a channel for each, no order, no memory of what was sent.
func fanoutRole() {
	file, err := os.Create(filepath.Join(os.Args[1], "posts"))
	if err != nil {
		panic(err)
	}
	var mu sync.RWMutex // guards streams
	streams := map[chan []byte]bool{}
	post := func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil || !hmac.Equal([]byte(req.Header.Get("X-Hub-Signature-256")), []byte("sha256="+sign(devSecret, body))) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if _, err = file.Write(body); err == nil { // at once by many, as are the syncs
			err = file.Sync()
		}
		if err != nil {
			panic(err)
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		_, id, _ := strings.Cut(string(body), `"messages":[`)
		_, id, _ = strings.Cut(id, `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		message, err := proto.Marshal(&eventrelayv1.SubscribeResponse{Events: []*eventrelayv1.Event{{
			Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{Id: new(id)}}, Raw: append(body, make([]byte, 700)...),
		}}})
		if err != nil {
			panic(err)
		}
		mu.RLock()
		defer mu.RUnlock()
		for stream := range streams {
			stream <- message
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(post))
	handler := func(_ any, stream grpc.ServerStream) error {
		queue := make(chan []byte, 1000)
		mu.Lock()
		streams[queue] = true
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			delete(streams, queue)
		}()
		message := []byte{} // an empty message says that the stream is there
		for {
			if err := stream.SendMsg(&rawMessage{bytes: message}); err != nil {
				return err
			}
			select {
			case message = <-queue:
			case <-stream.Context().Done():
				return nil
			}
		}
	}
	serveBare(handler, map[string]func(int) string{}, listener.Addr().String())
}

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
