package main

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// A load is a number of kept connections to a server. Each posts one request after the other and waits for its 200. It speaks HTTP by hand, for a client would cost more
// than what is measured.
type load struct {
	tb      testing.TB
	address string
	writers int
	conns   []net.Conn // from the first post on, for a server soon closes what says nothing
}

func newLoad(tb testing.TB, address string, writers int) *load {
	return &load{tb: tb, address: strings.TrimPrefix(address, "http://"), writers: writers}
}

func (l *load) connect() {
	l.tb.Helper()
	for len(l.conns) < l.writers {
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			l.tb.Fatal(err)
		}
		l.tb.Cleanup(func() { conn.Close() })
		l.conns = append(l.conns, conn)
	}
}

// post posts each of the requests once, and returns how long all took, and each. The order is that of the answers.
func (l *load) post(requests [][]byte) (whole time.Duration, each []time.Duration) {
	l.tb.Helper()
	l.connect()
	took := make([][]time.Duration, len(l.conns))
	var next atomic.Int64
	var posting sync.WaitGroup
	begun := time.Now()
	for c, conn := range l.conns {
		posting.Go(func() {
			took[c] = make([]time.Duration, 0, 2*len(requests)/len(l.conns))
			answer := make([]byte, 512)
			for n := next.Add(1); n <= int64(len(requests)); n = next.Add(1) {
				at := time.Now()
				if err := ask(conn, requests[n-1], answer); err != nil {
					l.tb.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(at))
			}
		})
	}
	posting.Wait()
	whole = time.Since(begun)
	if l.tb.Failed() {
		l.tb.FailNow()
	}
	return whole, slices.Concat(took...)
}

// ask sends a request and waits for a 200 with an empty body.
func ask(conn net.Conn, request, answer []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	n := 0
	for !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")) {
		m, err := conn.Read(answer[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %s", answer[:n])
	}
	return nil
}

// request is a signed post of a body to the source dev.
func request(body []byte) []byte {
	return fmt.Appendf(nil, "POST /webhooks/dev HTTP/1.1\r\nHost: relay\r\nUser-Agent: facebookexternalua\r\nContent-Type: application/json\r\nX-Hub-Signature-256: sha256=%s\r\nContent-Length: %d\r\n\r\n%s",
		sign(devSecret, body), len(body), body)
}

// madeRequests are n requests of one message of 1 KB each, none of which was there before.
func madeRequests(round, n int) [][]byte {
	const size = 1 << 10
	padding := strings.Repeat("x", size)
	requests := make([][]byte, n)
	for i := range requests {
		id := fmt.Sprintf("wamid.%d.%d", round, i)
		requests[i] = request(text(id, padding[:size-len(text(id, ""))]))
	}
	return requests
}

// percentile is the value below which so much of each lies.
func percentile(each []time.Duration, p float64) time.Duration {
	slices.Sort(each)
	return each[min(int(p*float64(len(each))), len(each)-1)]
}

// caughtUp is drained at the cost of a small answer, for what is measured.
func (r *relay) caughtUp() {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, said := r.get("/readyz"); said == "ok\n" {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("not drained within a minute")
		}
	}
}

// BenchmarkIngest is a signed POST to its 200 and on into the log: the time ends when the log has all events. of-limit is the share of the speed at which net/http answers
// the same requests after the HMAC alone, asked in turn with it; for one writer, of the speed of one such answer and one sync, one after the other. A processor that sleeps
// while the disk syncs wakes up late, so not even the bare receiver reaches that when it syncs each body itself: bare-of-limit is its share, in the same run.
//
// As in all benchmarks that compare in turn, turns are taken until there are enough in which the host of a virtual machine took hardly any of the processors' time, or three
// times as many, and those count in which it took the least: stolen-% is what it took in them. The shares, and what was taken, are told of all turns as well, with all- in front.
func BenchmarkIngest(b *testing.B) { benchmarkPosts(b, true) }

// BenchmarkAck is BenchmarkIngest to the last 200, while the log follows as it can.
func BenchmarkAck(b *testing.B) { benchmarkPosts(b, false) }

func benchmarkPosts(b *testing.B, toTheLog bool) {
	for _, writers := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			// The turn in the middle is told: a pause of the machine makes one worth nothing, and in the first one everything is cold.
			turns := 7
			if writers == 1 {
				turns = 21 // of a second each, for every answer waits for a sync of its own, and some disks stall several times a second
			}
			r := spawn(b, b.TempDir())
			ours, bare := newLoad(b, r.webhooks, writers), newLoad(b, startRole(b, "receiver", memoryOnly).http, writers)
			disk, err := preallocated(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			synced := newLoad(b, startRole(b, "receiver", b.TempDir()).http, 1)
			posts := min(16_000, 1000*writers)
			made := 0
			for b.Loop() {
				b.ReportMetric(0, "ns/op") // of all turns, which says nothing
				reportTurns(b, turns, func() figures {
					requests := madeRequests(made, posts)
					made++
					got := figures{}
					limit, _ := bare.post(requests)
					if writers == 1 {
						limit += disk.sync(b, requests)
						took, _ := synced.post(requests)
						got["bare-of-limit"] = float64(limit) / float64(took)
					}
					begun := time.Now()
					took, each := ours.post(requests)
					r.caughtUp()
					if toTheLog {
						took = time.Since(begun)
					}
					got["of-limit"] = float64(limit) / float64(took)
					got["p99-ms"] = percentile(each, .99).Seconds() * 1e3
					got["req/s"], got["limit-req/s"] = float64(posts)/took.Seconds(), float64(posts)/limit.Seconds()
					return got
				})
			}
		})
	}
}

// BenchmarkThousandUpdates is the answer to one POST of a thousand updates. of-limit is how many times as long it may take, over how long it takes: twice the answer to one
// update, and the time that the bare receiver takes more for the larger body, its sync included. All three are asked in turn.
func BenchmarkThousandUpdates(b *testing.B) {
	r := spawn(b, b.TempDir())
	ours, bare := newLoad(b, r.webhooks, 1), newLoad(b, startRole(b, "receiver", b.TempDir()).http, 1)
	var one, thousand, share []float64
	for round := 0; b.Loop(); round++ {
		small, large := [][]byte{request(text(fmt.Sprintf("wamid.%d", round), "hello"))}, [][]byte{request(updates(strconv.Itoa(round), 1000))}
		bare.post(small) // the first sync after what another has written takes longer
		_, bareSmall := bare.post(small)
		_, bareLarge := bare.post(large)
		_, each := ours.post(small)
		r.caughtUp()
		one = append(one, each[0].Seconds())
		_, each = ours.post(large)
		r.caughtUp()
		thousand = append(thousand, each[0].Seconds())
		share = append(share, (bareLarge[0] - bareSmall[0]).Seconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(one)*1e3, "one-ms")
	b.ReportMetric(median(thousand)*1e3, "thousand-ms")
	b.ReportMetric(median(share)*1e3, "bytes-ms")
	b.ReportMetric((2*median(one)+median(share))/median(thousand), "of-limit")
}

// BenchmarkAckWhileStreaming is a signed POST to its 200 while what 32 writers post is streamed to 100 readers, each on a connection of its own. The limit is the bare
// receiver that syncs every body before the answer, with as many bare streams that get each of them; both get the same requests, in turn, and a turn ends when every reader
// has everything. The answer may take three times as long: of-limit is three times the limit's p99 over ours, so that from 1 on the aim is reached. streamed is the part of
// the deliveries that were made before the last answer: the posts go on for seconds, longer than events are ever put off.
func BenchmarkAckWhileStreaming(b *testing.B) {
	const writers, subscribers, posts = 32, 100, 32_000
	relay, bare := startRole(b, "relay", relayArgs(b.TempDir())...), startRole(b, "fanout", b.TempDir())
	ours := openStreamed(b, relay, writers, subscribers, what{method: subscribeMethod, request: &eventrelayv1.SubscribeRequest{}})
	defer ours.readers.close()
	limit := openStreamed(b, bare, writers, subscribers, what{method: bareMethod, request: &rawMessage{bytes: []byte{1}}, each: 1})
	defer limit.readers.close()
	made := 0
	for b.Loop() {
		b.ReportMetric(0, "ns/op")
		reportTurns(b, rounds, func() figures {
			requests := madeRequests(made, posts)
			made++
			bares := limit.post(requests)
			mine := ours.post(requests)
			return figures{
				"of-limit": 3 * bares.p99 / mine.p99,
				"p99-ms":   mine.p99 * 1e3, "limit-p99-ms": bares.p99 * 1e3,
				"req/s": mine.rate, "limit-req/s": bares.rate,
				"streamed": mine.streamed, "limit-streamed": bares.streamed,
			}
		})
	}
}

// streamed is a server with writers and with readers of what those write.
type streamed struct {
	b       *testing.B
	load    *load
	readers *readers
	posted  int64
}

// openStreamed opens writers and readers and has them warm: a connection that says nothing at first would be closed before its turn comes.
func openStreamed(b *testing.B, server *role, writers, subscribers int, w what) *streamed {
	b.Helper()
	s := &streamed{b: b, load: newLoad(b, server.http, writers), readers: openReaders(b, server.address, subscribers, func(int) what { return w })}
	_, _, s.posted = s.readers.sum() // a bare stream begins with a message of no event
	s.post(madeRequests(-1, 20*writers))
	return s
}

// streamedTurn is what was measured of some posts: the seconds within which 99 of 100 were answered, how many were a second, and the part of the deliveries to readers that
// were made before the last answer.
type streamedTurn struct{ p99, rate, streamed float64 }

// post posts the requests, and returns when every reader has got what was posted.
func (s *streamed) post(requests [][]byte) streamedTurn {
	s.b.Helper()
	before, _, _ := s.readers.sum()
	whole, each := s.load.post(requests)
	during, _, _ := s.readers.sum()
	s.posted += int64(len(requests))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, _, least := s.readers.sum()
		if least >= s.posted {
			break
		}
		if time.Now().After(deadline) {
			s.b.Fatalf("a reader has got %d of %d events within a minute", least, s.posted)
		}
	}
	return streamedTurn{
		p99:      percentile(each, .99).Seconds(),
		rate:     float64(len(requests)) / whole.Seconds(),
		streamed: float64(during-before) / float64(len(requests)*len(s.readers.all)),
	}
}
