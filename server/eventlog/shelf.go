package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Shelf keeps messages beside the events, in the order in which they were put, one a subject: what is put under a subject replaces what was there. It is a stream of its own, that
// consumers can read. All methods may be called at once by many goroutines, and end with ErrUnavailable while the log cannot be reached.
type Shelf struct {
	log    *Log
	name   string
	maxAge time.Duration

	mu   sync.Mutex // guards link; held while the stream is looked for
	link *link      // the one over which the stream was seen to
}

// Kept is a message of a shelf.
type Kept struct {
	// Sequence ascends with every Put.
	Sequence uint64
	Subject  string
	Data     []byte
}

// Shelf returns the shelf of that name: capital letters. Its subjects begin with the name in small letters, which they do not show here. What is older than maxAge goes; 0 keeps
// everything. It is made when it is first used.
func (l *Log) Shelf(name string, maxAge time.Duration) *Shelf {
	return &Shelf{log: l, name: name, maxAge: maxAge}
}

func (s *Shelf) prefix() string { return strings.ToLower(s.name) + "." }

// Consumer returns the consumer of that name over what is put on the shelf.
func (s *Shelf) Consumer(name string) *Consumer {
	return &Consumer{log: s.log, name: name, from: source{s.name, s.prefix()}}
}

// Pattern makes of subjects of the shelf, which may hold wildcards, what ConsumerOptions wants.
func (s *Shelf) Pattern(subject string) string { return s.prefix() + subject }

// Put stores a message. When it returns without an error that is durable, as with Append.
func (s *Shelf) Put(ctx context.Context, subject string, data []byte) error {
	err := s.write(ctx, func(ctx context.Context, k *link) error {
		_, err := k.js.PublishMsg(ctx, &nats.Msg{Subject: s.prefix() + subject, Data: data})
		return err
	})
	if err != nil {
		return fmt.Errorf("put %s on shelf %s: %w", subject, s.name, err)
	}
	return nil
}

// Next returns the first message behind a sequence whose subject matches, or ErrNotFound.
func (s *Shelf) Next(ctx context.Context, subject string, after uint64) (Kept, error) {
	var found Kept
	err := s.call(ctx, func(ctx context.Context, k *link) error {
		request := `{"next_by_subj":"` + s.prefix() + subject + `","seq":` + strconv.FormatUint(after+1, 10) + `}`
		reply, err := k.sub.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+s.name, []byte(request))
		if err != nil {
			return err
		}
		stored, err := storedAnswer(reply)
		if err == nil {
			found = Kept{Sequence: stored.Sequence, Subject: strings.TrimPrefix(stored.Subject, s.prefix()), Data: stored.Data}
		}
		return err
	})
	if err != nil {
		return Kept{}, fmt.Errorf("get %s from shelf %s: %w", subject, s.name, err)
	}
	return found, nil
}

// Remove takes the message of a sequence away, and returns ErrNotFound if it is not there any more.
func (s *Shelf) Remove(ctx context.Context, sequence uint64) error {
	err := s.write(ctx, func(ctx context.Context, k *link) error {
		reply, err := k.sub.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+s.name, []byte(`{"seq":`+strconv.FormatUint(sequence, 10)+`,"no_erase":true}`))
		if err != nil {
			return err
		}
		var answer struct {
			Error *apiError `json:"error"`
		}
		switch err := json.Unmarshal(reply.Data, &answer); {
		case err != nil || answer.Error == nil:
			return err
		case answer.Error.ErrCode == server.JSSequenceNotFoundErrF, answer.Error.ErrCode == server.JSNoMessageFoundErr:
			return ErrNotFound
		}
		return fmt.Errorf("%s (%d)", answer.Error.Description, answer.Error.ErrCode)
	})
	if err != nil {
		return fmt.Errorf("remove message %d from shelf %s: %w", sequence, s.name, err)
	}
	return nil
}

// Clear takes away all messages whose subject matches.
func (s *Shelf) Clear(ctx context.Context, subject string) error {
	err := s.write(ctx, func(ctx context.Context, k *link) error {
		stream, err := k.js.Stream(ctx, s.name)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, jetstream.WithPurgeSubject(s.prefix()+subject))
	})
	if err != nil {
		return fmt.Errorf("clear %s on shelf %s: %w", subject, s.name, err)
	}
	return nil
}

// Count tells how many messages have a subject that matches.
func (s *Shelf) Count(ctx context.Context, subject string) (uint64, error) {
	var n uint64
	err := s.call(ctx, func(ctx context.Context, k *link) error {
		stream, err := k.js.Stream(ctx, s.name)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(s.prefix()+subject))
		if err == nil {
			n = uint64(len(info.State.Subjects)) // one message each
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count %s on shelf %s: %w", subject, s.name, err)
	}
	return n, nil
}

// Open makes the shelf if it is not there. Consumers need that, the other methods see to it themselves.
func (s *Shelf) Open(ctx context.Context) error {
	return s.call(ctx, func(context.Context, *link) error { return nil })
}

// call does something with the stream, within callTimeout, and makes of its error one of this package.
func (s *Shelf) call(ctx context.Context, do func(context.Context, *link) error) error {
	ctx, stop := s.log.scope(ctx)
	defer stop()
	k, err := s.open(ctx)
	if err != nil {
		return err
	}
	return s.settle(ctx, k, do)
}

// write is call for what changes something, as Bucket.write.
func (s *Shelf) write(ctx context.Context, do func(context.Context, *link) error) error {
	ctx, stop := s.log.scope(ctx)
	defer stop()
	k, err := s.open(ctx)
	if err != nil {
		return err
	}
	if err = s.settle(ctx, k, do); k.srv == nil {
		return err
	}
	if err == nil {
		if err = k.synced(s.log.folder.SyncMessages(s.name)); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if errors.Is(err, ErrUnavailable) {
		s.log.fault(k, err) // a store that met a write error does not answer any more, until it is opened anew
	}
	return err
}

func (s *Shelf) settle(ctx context.Context, k *link, do func(context.Context, *link) error) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := do(bounded, k)
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	s.mu.Lock()
	s.link = nil
	s.mu.Unlock()
	return s.log.wrap(ctx, err)
}

// open returns the link in use, over which the stream is there.
func (s *Shelf) open(ctx context.Context) (*link, error) {
	k, err := s.log.link(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == k {
		return k, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.ensure(ctx, k); err != nil {
		return nil, fmt.Errorf("open shelf %s: %w", s.name, s.log.wrap(ctx, err))
	}
	s.link = k
	return k, nil
}

// ensure finds the stream or makes it, with as many copies as the log has.
func (s *Shelf) ensure(ctx context.Context, k *link) error {
	want := jetstream.StreamConfig{
		Name: s.name, Description: "Kept by eventrelay beside its events.", Subjects: []string{s.prefix() + ">"}, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		Storage: jetstream.FileStorage, Replicas: k.replicas, MaxAge: s.maxAge, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxMsgsPerSubject: 1,
	}
	if s.maxAge > 0 {
		want.Duplicates = min(s.maxAge, defaultDuplicateWindow)
	}
	found, err := k.js.Stream(ctx, s.name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if k.srv != nil {
			if _, err := os.Stat(filepath.Join(s.folder(), server.JetStreamMetaFile)); err == nil {
				return fmt.Errorf("it was not recovered from %s", s.folder())
			}
		}
		if _, err = k.js.CreateStream(ctx, want); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			err = nil // another relay was faster
		}
	case err == nil:
		is := found.CachedInfo().Config
		if is.Replicas != want.Replicas || is.MaxAge != want.MaxAge {
			is.Replicas, is.MaxAge = want.Replicas, want.MaxAge
			if want.Duplicates > 0 {
				is.Duplicates = want.Duplicates
			}
			_, err = k.js.UpdateStream(ctx, is)
		}
	}
	if err == nil && k.srv != nil {
		err = k.synced(s.log.folder.SyncTree(s.folder()))
	}
	return err
}

// folder is where the embedded server keeps the stream.
func (s *Shelf) folder() string {
	return s.log.folder.Stream(s.name)
}
