package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// clockSkew is how far the clock of a relay may run ahead of that of the server that stores.
	clockSkew = 10 * time.Second

	// newest looks back through this many entries first, and through newestGrowth times as many each time after.
	newestWindow = 64
	newestGrowth = 8
)

// Get returns the entry with that sequence, or ErrNotFound.
func (l *Log) Get(ctx context.Context, sequence uint64) (Entry, error) {
	if sequence == 0 || sequence >= 1<<63 { // no entry has these
		return Entry{}, fmt.Errorf("get %d: %w", sequence, ErrNotFound)
	}
	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return Entry{}, fmt.Errorf("get %d: %w", sequence, err)
	}
	e, err := l.lookup(ctx, k, `{"seq":`+strconv.FormatUint(sequence, 10)+`}`)
	if err != nil {
		return Entry{}, fmt.Errorf("get %d: %w", sequence, l.wrap(ctx, err))
	}
	return e, nil
}

// SequenceAt returns the sequence of the first entry whose Time is not before t; Last+1 if there is none.
//
// Times need not ascend: several relays share a log, and one that was cut off stores late what it received early. So this is no
// binary search by Time. But nothing is stored before it is received, so the search starts where the log was when the store's
// own clock said t, which JetStream knows, and goes on from there by Time. It costs as much as reading the headers of what was
// stored after t and received before.
func (l *Log) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	ctx, stop := l.scope(ctx)
	defer stop()
	k, err := l.link(ctx)
	if err != nil {
		return 0, fmt.Errorf("find sequence at %s: %w", t, err)
	}
	st, err := l.state(ctx, k)
	if err != nil {
		return 0, fmt.Errorf("find sequence at %s: %w", t, l.wrap(ctx, err))
	}
	found := st.Last + 1
	if st.Events == 0 {
		return found, nil
	}
	err = l.readUntil(ctx, start{stored: t.Add(-clockSkew)}, st.Last, true, func(e Entry, _ error) bool {
		if e.Time.Before(t) {
			return true
		}
		found = e.Sequence
		return false
	})
	if err != nil && !errors.Is(err, errStopped) {
		return 0, fmt.Errorf("find sequence at %s: %w", t, l.wrap(ctx, err))
	}
	return found, nil
}

// Position returns the origin of the newest event in the log that came from the journal, and false if there is none. A journal
// that has the log for itself costs one lookup; where others wrote since, as many headers are read as they wrote events, and
// all of them for a journal that never wrote.
func (l *Log) Position(ctx context.Context, journalID string) (Origin, bool, error) {
	ctx, stop := l.scope(ctx)
	defer stop()
	e, ok, err := l.newest(ctx, func(e Entry) bool { return e.Origin.Journal == journalID })
	if err != nil {
		return Origin{}, false, fmt.Errorf("find position of journal %s: %w", journalID, l.wrap(ctx, err))
	}
	return e.Origin, ok, nil
}

// newest finds the newest entry that matches; its Data may be missing. It looks at the last entry first, and then at headers, in growing windows from the end.
func (l *Log) newest(ctx context.Context, match func(Entry) bool) (found Entry, ok bool, err error) {
	k, err := l.link(ctx)
	if err != nil {
		return Entry{}, false, err
	}
	st, err := l.state(ctx, k)
	if err != nil || st.Events == 0 {
		return Entry{}, false, err
	}
	last, err := l.lookup(ctx, k, `{"last_by_subj":"`+subjectPrefix+`>"}`)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Entry{}, false, err
	}
	if err == nil && match(last) {
		return last, true, nil
	}
	end := st.Last
	for size := uint64(newestWindow); !ok && end >= st.First; size *= newestGrowth {
		begin := st.First
		if end-st.First >= size {
			begin = end - size + 1
		}
		err := l.readUntil(ctx, start{seq: begin}, end, true, func(e Entry, _ error) bool {
			if match(e) {
				found, ok = e, true
			}
			return true
		})
		if err != nil {
			return Entry{}, false, err
		}
		end = begin - 1
	}
	return found, ok, nil
}

// first finds the first entry at or after from and not after last.
func (l *Log) first(ctx context.Context, k *link, from start, last uint64) (Entry, error) {
	req := `{"next_by_subj":"` + subjectPrefix + `>","seq":` + strconv.FormatUint(max(from.seq, 1), 10) + `}`
	if from.seq == 0 && !from.stored.IsZero() {
		req = `{"next_by_subj":"` + subjectPrefix + `>","start_time":"` + from.stored.UTC().Format(time.RFC3339Nano) + `"}`
	}
	e, err := l.lookup(ctx, k, req)
	if err == nil && e.Sequence > last {
		err = ErrNotFound
	}
	return e, err
}

// lookup finds one message as the stream's leader knows it. The answer waits for a write that is going on.
func (l *Log) lookup(ctx context.Context, k *link, request string) (Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// The direct way is several times faster for large events, but with replicas any of them answers, also one that lags.
	subject := "$JS.API.DIRECT.GET." + streamName
	if k.replicas > 1 {
		subject = "$JS.API.STREAM.MSG.GET." + streamName
	}
	reply, err := k.sub.RequestWithContext(ctx, subject, []byte(request))
	if err != nil {
		return Entry{}, fmt.Errorf("look up message: %w", err)
	}
	if k.replicas > 1 {
		return leaderAnswer(reply)
	}
	return directAnswer(reply)
}

func directAnswer(m *nats.Msg) (Entry, error) {
	sequence := m.Header.Get("Nats-Sequence")
	if sequence == "" {
		if m.Header.Get("Status") == "404" {
			return Entry{}, ErrNotFound
		}
		return Entry{}, fmt.Errorf("look up message: %s %s", m.Header.Get("Status"), m.Header.Get("Description"))
	}
	n, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("look up message: %w", err)
	}
	e := Entry{Sequence: n, Data: m.Data}
	e.header(m.Header)
	return e, nil
}

func leaderAnswer(m *nats.Msg) (Entry, error) {
	stored, err := storedAnswer(m)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Sequence: stored.Sequence, Data: stored.Data}
	if len(stored.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(stored.Header)
		if err != nil {
			return Entry{}, fmt.Errorf("look up message %d: %w", e.Sequence, err)
		}
		e.header(h)
	}
	return e, nil
}

// storedAnswer is what a stream's leader says of one message.
func storedAnswer(m *nats.Msg) (*server.StoredMsg, error) {
	var answer struct {
		Error   *apiError         `json:"error"`
		Message *server.StoredMsg `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, fmt.Errorf("look up message: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrCode == server.JSNoMessageFoundErr:
		return nil, ErrNotFound
	case answer.Error != nil:
		return nil, fmt.Errorf("look up message: %s (%d)", answer.Error.Description, answer.Error.ErrCode)
	case answer.Message == nil:
		return nil, errors.New("look up message: empty answer")
	}
	return answer.Message, nil
}
