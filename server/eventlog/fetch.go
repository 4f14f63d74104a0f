package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"eventrelay/server/eventlog/store"
)

// Delivery is an entry that a consumer was given.
type Delivery struct {
	Entry
	// Subject is what lies behind the prefix of its stream.
	Subject string
	// Attempt is the how manieth time it was given, from 1.
	Attempt int
	// Receipt is what it is settled by, from anywhere. It is nothing that anybody may be trusted with: who can make one up can settle what is not theirs.
	Receipt string
	// Consumer is the index of the request that it answers.
	Consumer int
}

// Demand is what is wanted of one consumer.
type Demand struct {
	Consumer *Consumer
	// Max is how much is wanted at most.
	Max int
	// MaxBytes bounds the size of what is given for this demand; 0 is no bound.
	MaxBytes int
	// Wait is how long to wait for the first; 0 takes what is there. With it one comes at most: what came while nobody listens any more would count as given.
	Wait time.Duration
	// Linger is for a consumer that often has all outstanding that it may: the server says nothing then, unless it is told how long to think about it.
	Linger time.Duration
}

// Fetched is what Fetch was given.
type Fetched struct {
	Deliveries []Delivery
	// TooLarge are the indexes of the demands whose next entry alone exceeds MaxBytes.
	TooLarge []int
	// Gone are the indexes of the demands whose consumer is not there.
	Gone []int
}

const (
	// fetchGrace is how much longer than it asked for a fetch waits for the server's word that there is no more.
	fetchGrace = 5 * time.Second
	// silence is how long a fetch of what is there waits for any word. A consumer that has all outstanding that it may gives none.
	silence = time.Second
)

// Fetch asks consumers for what is due, all at once. What comes counts as given, and is the caller's to settle, with an error too: what had come before it is in Fetched. When
// ctx ends, what has been sent by then is still taken, so that none of it is given to nobody.
func (l *Log) Fetch(ctx context.Context, demands []Demand) (Fetched, error) {
	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return Fetched{}, fmt.Errorf("fetch: %w", err)
	}
	got, err := k.fetch(ctx, demands)
	for _, d := range got.Deliveries {
		if err == nil && demands[d.Consumer].Consumer.from.stream == streamName {
			err = k.shown(ctx, d.Sequence)
		}
	}
	if err == nil && l.receipts != nil {
		// An attempt that is told is never taken back, so it is written down first. The first one may be.
		var again []string
		for _, d := range got.Deliveries {
			if d.Attempt > 1 {
				again = append(again, store.Given(d.Receipt))
			}
		}
		err = l.receipts.Remember(again)
	}
	if err != nil {
		return got, fmt.Errorf("fetch: %w", l.wrap(ctx, err))
	}
	return got, nil
}

// fetch is Fetch over one link.
func (k *link) fetch(ctx context.Context, demands []Demand) (got Fetched, err error) {
	f := fetch{k: k, demands: demands, inbox: nats.NewInbox() + ".", open: make([]int, len(demands))}
	room := 0
	for _, d := range demands {
		room += d.Max + 2 // what is wanted, and the word that there is no more
	}
	f.came = make(chan *nats.Msg, room)
	// A channel and not a subscription that is asked: that one makes an error of the answer that nobody is there, and hides which demand it is for.
	if f.sub, err = k.sub.ChanSubscribe(f.inbox+"*", f.came); err != nil {
		return Fetched{}, err
	}
	defer func() { _ = f.sub.Unsubscribe() }() // fails when it has ended already
	if err = f.ask(); err == nil {
		err = f.take(ctx)
	}
	return f.got, err
}

// fetch is one call of Fetch.
type fetch struct {
	k       *link
	demands []Demand
	sub     *nats.Subscription
	came    chan *nats.Msg
	inbox   string
	open    []int // what is still to come of each demand
	left    int   // demands that are not answered in full
	wait    time.Duration
	got     Fetched
}

func (f *fetch) ask() error {
	for i, d := range f.demands {
		f.open[i] = d.Max
		request := fmt.Sprintf(`{"batch":%d,"max_bytes":%d,"no_wait":true}`, d.Max, d.MaxBytes)
		if d.Linger > 0 {
			request = fmt.Sprintf(`{"batch":%d,"max_bytes":%d,"no_wait":true,"expires":%d}`, d.Max, d.MaxBytes, d.Linger)
		}
		if d.Wait > 0 {
			f.open[i] = 1
			request = fmt.Sprintf(`{"batch":1,"expires":%d}`, d.Wait)
			f.wait = max(f.wait, d.Wait)
		}
		if err := f.k.sub.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+d.Consumer.from.stream+"."+d.Consumer.name, f.inbox+strconv.Itoa(i), []byte(request)); err != nil {
			return err
		}
		f.left++
	}
	return nil
}

// take receives until every demand is answered.
func (f *fetch) take(ctx context.Context) error {
	grace := fetchGrace
	if f.wait == 0 {
		grace = silence
	}
	waiting, cancel := context.WithTimeout(ctx, f.wait+grace)
	defer cancel()
	lost := f.k.sub.StatusChanged(nats.CLOSED)
	defer f.k.sub.RemoveStatusListener(lost)
	for f.left > 0 {
		var err error
		select {
		case m := <-f.came:
			err = f.receive(m)
		case <-lost:
			return nats.ErrConnectionClosed
		case <-waiting.Done():
			if err = context.Cause(ctx); err == nil && f.wait > 0 {
				err = errors.New("no answer in time")
			} else if err == nil {
				f.rest()
				return nil
			}
		}
		if err != nil {
			f.rest()
			return err
		}
	}
	return nil
}

// rest ends the listening and takes what had been sent before: the server has done with the subscription when it answers the flush.
func (f *fetch) rest() {
	if f.sub.Drain() != nil || f.k.sub.FlushTimeout(time.Second) != nil {
		return // the connection is gone
	}
	for {
		select {
		case m := <-f.came:
			_ = f.receive(m) // it cannot be asked for again
		default:
			return
		}
	}
}

// receive takes one message: an entry, or the word that a demand has no more.
func (f *fetch) receive(m *nats.Msg) error {
	if m.Reply == "" {
		return f.ended(m)
	}
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	i := 0
	for j, d := range f.demands {
		if d.Consumer.name == meta.Consumer {
			i = j
		}
	}
	d := Delivery{
		Entry: entryOf(item{seq: meta.Sequence.Stream, msg: m}, false), Subject: strings.TrimPrefix(m.Subject, f.demands[i].Consumer.from.prefix),
		Attempt: int(meta.NumDelivered), Receipt: m.Reply, Consumer: i,
	}
	f.got.Deliveries = append(f.got.Deliveries, d)
	if f.open[i]--; f.open[i] == 0 {
		f.left--
	}
	return nil
}

func (f *fetch) ended(m *nats.Msg) error {
	status, text := m.Header.Get("Status"), m.Header.Get("Description")
	i, err := strconv.Atoi(strings.TrimPrefix(m.Subject, f.inbox))
	if err != nil || i < 0 || i >= len(f.open) {
		return fmt.Errorf("answer on %q: %s %s", m.Subject, status, text)
	}
	switch {
	case f.open[i] == 0: // it was answered in full, which the server may say as well
		return nil
	case status == "100":
		return nil
	case status == "404", status == "408":
	case status == "409" && strings.Contains(text, "MaxBytes"):
		if f.open[i] == f.demands[i].Max {
			f.got.TooLarge = append(f.got.TooLarge, i)
		}
	case status == "409" && strings.Contains(text, "Consumer Deleted"), status == "503":
		f.got.Gone = append(f.got.Gone, i)
	case status == "409": // a limit of the consumer that is reached at the moment
	default:
		return fmt.Errorf("fetch from %s ended: %s %s", f.demands[i].Consumer.name, status, text)
	}
	f.open[i] = 0
	f.left--
	return nil
}

// Verdict is how a delivery is settled.
type Verdict int

const (
	// Done settles it: it is not given again.
	Done Verdict = iota + 1
	// Back gives it back: it is given again after the delay of its attempt.
	Back
	// More has its deadline begin anew.
	More
)

// Settlement is a verdict on one delivery.
type Settlement struct {
	Receipt string
	Verdict Verdict
	// Delay is the first of the Delays of the consumer, with Back.
	Delay time.Duration
}

func (s Settlement) text() []byte {
	switch s.Verdict {
	case Back:
		if s.Delay > 0 {
			// The server adds by how much the deadline of this attempt exceeds the first, which is by how much the rests do.
			return fmt.Appendf(nil, `-NAK {"delay":%d}`, s.Delay)
		}
		return []byte("-NAK")
	case More:
		return []byte("+WPI")
	default:
		return []byte("+ACK")
	}
}

// settleBurst is how many settlements are under way at a time.
const settleBurst = 256

// Settle tells the log what became of deliveries, by whatever relay they were fetched, and returns when the log has taken it. gone has, for each, whether its consumer is not
// there any more. What is Done is durable then: not even a power cut has it given again to anybody but this package. Whatever was settled before stays as it was. With an error some may have been settled; it is safe to repeat.
func (l *Log) Settle(ctx context.Context, settlements []Settlement) (gone []bool, err error) {
	gone = make([]bool, len(settlements))
	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return gone, fmt.Errorf("settle: %w", err)
	}
	if err := k.settleAll(ctx, settlements, gone); err != nil {
		return gone, fmt.Errorf("settle: %w", l.wrap(ctx, err))
	}
	if l.receipts == nil {
		return gone, nil
	}
	var done []string
	for i, s := range settlements {
		if s.Verdict == Done && !gone[i] {
			done = append(done, store.Done(s.Receipt))
		}
	}
	if err := l.receipts.Remember(done); err != nil {
		return gone, fmt.Errorf("settle: %w: %w", ErrUnavailable, err)
	}
	return gone, nil
}

// settleAll tells the server, and notes whose consumer is gone.
func (k *link) settleAll(ctx context.Context, settlements []Settlement, gone []bool) error {
	if len(settlements) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	inbox := nats.NewInbox() + "."
	came := make(chan *nats.Msg, 2*settleBurst)
	sub, err := k.sub.ChanSubscribe(inbox+"*", came)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails when the connection is gone
	for first := 0; first < len(settlements); first += settleBurst {
		part := settlements[first:min(first+settleBurst, len(settlements))]
		if err := k.settle(bounded, came, inbox+strconv.Itoa(first), part, gone[first:]); err != nil {
			return err
		}
	}
	return nil
}

func (k *link) settle(ctx context.Context, came <-chan *nats.Msg, inbox string, part []Settlement, gone []bool) error {
	for i, s := range part {
		if err := k.sub.PublishMsg(&nats.Msg{Subject: s.Receipt, Reply: inbox + "-" + strconv.Itoa(i), Data: s.text()}); err != nil {
			return err
		}
	}
	answered := make([]bool, len(part))
	for left := len(part); left > 0; {
		select {
		case m := <-came:
			n, _ := strings.CutPrefix(m.Subject, inbox+"-")
			i, err := strconv.Atoi(n)
			if err != nil || i < 0 || i >= len(part) || answered[i] {
				continue // it belongs to a burst before
			}
			answered[i] = true
			gone[i] = m.Header.Get("Status") == "503"
			left--
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Dismiss settles deliveries as Done without waiting for the log's word: what does not arrive is given again.
func (l *Log) Dismiss(ctx context.Context, receipts []string) error {
	k, err := l.link(ctx)
	if err != nil {
		return fmt.Errorf("dismiss: %w", err)
	}
	for _, receipt := range receipts {
		if err := k.sub.Publish(receipt, []byte("+ACK")); err != nil {
			return fmt.Errorf("dismiss: %w", l.wrap(ctx, err))
		}
	}
	return nil
}

// termination is what of an advisory is of use.
type termination struct {
	Consumer string `json:"consumer"`
	Sequence uint64 `json:"stream_seq"`
	Reason   string `json:"reason"`
}

func terminated(data []byte) (termination, error) {
	var t termination
	err := json.Unmarshal(data, &t)
	return t, err
}
