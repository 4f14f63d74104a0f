package main

import (
	"crypto/hmac"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	whatsappv1 "eventrelay/gen/go/whatsapp/webhooks/v1"
)

// memoryOnly stands for the folder of a bare receiver that keeps nothing.
const memoryOnly = "memory"

// receiverRole is the least that a receiver can do: net/http that checks the HMAC of a body and answers 200. In its folder each body is written and synced before the answer.
func receiverRole() {
	address := receive(os.Args[1], nil)
	fmt.Println("-", address)
	obey(map[string]func(int) string{})
}

// fanoutRole is the least that takes signed posts, makes each durable and hands it to every stream: the bare receiver, and bare streams that send what it took, a message at
// a time, each as fast as it can.
func fanoutRole() {
	p := &posted{more: make(chan struct{})}
	serveBare(p.stream, map[string]func(int) string{}, receive(os.Args[1], p.add))
}

// receive starts a bare receiver, which calls took, if it is set, with each body once it has answered, and returns its address.
func receive(dir string, took func(body []byte)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	keep := func([]byte) error { return nil }
	if dir != memoryOnly {
		file, err := preallocated(dir)
		if err != nil {
			panic(err)
		}
		keep = file.append
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if !hmac.Equal([]byte(r.Header.Get("X-Hub-Signature-256")), []byte("sha256="+sign(devSecret, body))) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if err := keep(body); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if took == nil {
			w.WriteHeader(http.StatusOK)
			return
		}
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		took(body)
	}))
	return listener.Addr().String()
}

// posted is what a bare receiver has taken, as messages for streams. They are kept: what a stream has still to send delays neither an answer nor another stream.
type posted struct {
	mu   sync.Mutex // guards what follows
	all  [][]byte
	more chan struct{} // closed when there is more
}

// add makes a message of a body, as large as ours of it and with the same id.
func (p *posted) add(body []byte) {
	_, id, _ := strings.Cut(string(body), `"messages":[`)
	_, id, _ = strings.Cut(id, `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	message, err := proto.Marshal(&eventrelayv1.SubscribeResponse{Events: []*eventrelayv1.Event{{
		Payload: &eventrelayv1.Event_Message{Message: &whatsappv1.Message{Id: new(id)}}, Raw: append(body, make([]byte, 700)...),
	}}})
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, message)
	close(p.more)
	p.more = make(chan struct{})
}

// stream sends what is added from now on, behind an empty message that says that it is there.
func (p *posted) stream(_ any, stream grpc.ServerStream) error {
	p.mu.Lock()
	sent := len(p.all)
	p.mu.Unlock()
	if err := stream.SendMsg(&rawMessage{bytes: []byte{}}); err != nil {
		return err
	}
	for {
		p.mu.Lock()
		messages, more := p.all[sent:], p.more
		p.mu.Unlock()
		for _, message := range messages {
			if err := stream.SendMsg(&rawMessage{bytes: message}); err != nil {
				return err
			}
		}
		sent += len(messages)
		if len(messages) > 0 {
			continue
		}
		select {
		case <-more:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// synced is a file of a fixed size that is written from the front to the end and over again, each write synced.
type synced struct {
	file *os.File
	at   atomic.Int64
}

// syncedSize is that of a segment of the journal.
const syncedSize = 64 << 20

// preallocated returns a file of a segment's size, filled, so that a sync has only the bytes to write.
func preallocated(dir string) (*synced, error) {
	file, err := os.Create(filepath.Join(dir, "synced"))
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(make([]byte, syncedSize)); err != nil {
		return nil, err
	}
	return &synced{file: file}, file.Sync()
}

// append writes and syncs a body. It may be called by many at once.
func (s *synced) append(body []byte) error {
	at := s.at.Add(int64(len(body))) % (syncedSize - 8<<20)
	if _, err := s.file.WriteAt(body, at); err != nil {
		return err
	}
	return s.file.Sync()
}

// sync writes and syncs what the requests would have stored, one after the other.
func (s *synced) sync(tb testing.TB, requests [][]byte) time.Duration {
	begun := time.Now()
	for _, r := range requests {
		if err := s.append(r); err != nil {
			tb.Fatal(err)
		}
	}
	return time.Since(begun)
}
