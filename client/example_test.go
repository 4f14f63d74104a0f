package client_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"

	"eventrelay/client"
	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// A program that works through events and keeps the cursor of the last one goes on behind it at its next start.
func ExampleClient_Follow() {
	address, stop := exampleServer()
	defer stop()

	c, err := client.Dial(address)
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = c.Close() }()

	var saved string // in a real program: kept where the work itself is kept
	options := client.FollowOptions{
		Filter: `event.type.startsWith("meta.whatsapp_business_account.messages")`,
		From:   eventrelayv1.StartFrom_START_FROM_EARLIEST,
	}
	for event, err := range c.Follow(context.Background(), options) {
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Println("worked on", event.GetId())
		if saved = event.GetCursor(); saved == "c2" {
			break
		}
	}

	for event, err := range c.Follow(context.Background(), client.FollowOptions{Cursor: saved}) {
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Println("went on with", event.GetId())
		break
	}
	// Output:
	// worked on event1
	// worked on event2
	// went on with event3
}

// exampleServer stands in for an eventrelay server: it has three events.
func exampleServer() (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Panic(err)
	}
	server := grpc.NewServer()
	eventrelayv1.RegisterEventServiceServer(server, newRelay(3))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return listener.Addr().String(), func() {
		server.Stop()
		<-done
	}
}
