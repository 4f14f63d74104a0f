package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/seal"
)

var (
	// ErrNotFound is returned for a name that no source has.
	ErrNotFound = errors.New("no such source")
	// ErrExists is returned by Create for a name that is taken.
	ErrExists = errors.New("there is a source of that name")
	// ErrReadOnly is returned for a change of a source that is defined in a file.
	ErrReadOnly = errors.New("the source is defined in a file of the server; change it there")
	// ErrStale is returned for a change from an etag that is not the source's any more.
	ErrStale = errors.New("the source has changed since the etag was given out; read it again")
	// ErrNotLoaded is returned while the sources are not known: there is no snapshot of them, and the log has not been reached yet.
	ErrNotLoaded = errors.New("the sources are not loaded yet, because the log cannot be reached; try again")
	// ErrUnreadable is returned for a change of a source whose record this server cannot use. Deleting it is possible.
	ErrUnreadable = errors.New("the record of the source cannot be used by this server")
)

// StateError says which source a call could not be done for. It wraps one of ErrNotFound, ErrExists, ErrReadOnly, ErrStale and ErrUnreadable.
type StateError struct {
	// Name is the name of the source.
	Name string
	// Etag is the etag of the source as it is, with ErrStale.
	Etag string
	Err  error
}

// Error names the source and says what is the matter.
func (e *StateError) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap returns what is the matter.
func (e *StateError) Unwrap() error { return e.Err }

// Bucket is where sources are kept; *eventlog.Bucket is one.
type Bucket interface {
	Get(ctx context.Context, key string) (eventlog.Value, error)
	Create(ctx context.Context, key string, data []byte) (revision uint64, err error)
	Update(ctx context.Context, key string, data []byte, revision uint64) (next uint64, err error)
	Delete(ctx context.Context, key string, revision uint64) error
	List(ctx context.Context) ([]eventlog.Value, error)
	Watch(ctx context.Context) iter.Seq2[eventlog.Change, error]
}

// Options are what Open needs. Bucket, Keys and Snapshot are required.
type Options struct {
	// Fixed are the sources of a file. They cannot be changed, and come before stored ones of the same name.
	Fixed []*eventrelayv1.Source
	// Bucket holds the others, for all relays that share it.
	Bucket Bucket
	// Keys seal what is stored.
	Keys *seal.Keys
	// Snapshot is the path of the file that holds what the bucket held last.
	Snapshot string
	// ClientCertificates says that the server can check the client certificate of a sender; without it a source that requires one is refused.
	ClientCertificates bool
	// Logger gets what no caller is told. nil discards.
	Logger *slog.Logger
}

const (
	// canaryKey holds a sealed text that tells at a start whether the keys are the right ones, even if there are no sources. No source has an id like that.
	canaryKey     = "_key"
	canaryPurpose = "eventrelay key of sources"

	// firstLook bounds the wait for the bucket at Open. A log that is there answers in milliseconds; one that is away must not keep webhooks waiting.
	firstLook = 3 * time.Second
)

// Store has all sources, those of a file and those of the bucket. It is safe for concurrent use; Get, List, Endpoint, Ready, Count and Credentials take no lock
// and never wait for a change.
type Store struct {
	o       Options
	logger  *slog.Logger
	tallies tallies
	since   time.Time
	fixed   map[string]*item // never changes

	current atomic.Pointer[view]

	mu       sync.Mutex // guards what follows: one change at a time
	stored   map[string]*record
	loaded   bool
	renewed  bool // whether old keys were done away with since the start
	snapshot snapshot
}

// view is what readers see.
type view struct {
	*Set
	loaded bool
}

// record is what is known of one key of the bucket.
type record struct {
	// item is nil where this store has deleted the source and the watch has not caught up with that yet.
	item     *item
	revision uint64
	sealed   []byte
	// own says that this store wrote the record and the watch has not caught up with it yet.
	own bool
}

// Open returns the store with the sources that can be known now: those of the file, those of the snapshot and, if the bucket can be reached, those of the bucket. It
// fails for a source of the file that is not valid, and with seal.ErrWrongKey for sources that were stored under keys that are not among the keys.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		o: o, logger: o.Logger, since: time.Now(), stored: map[string]*record{},
		snapshot: snapshot{path: o.Snapshot, keys: o.Keys},
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.fixed, err = newItems(o.Fixed, &s.tallies, o.ClientCertificates); err != nil {
		return nil, err
	}
	if err := s.recall(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	values, err := o.Bucket.List(ctx)
	if err == nil {
		changes := make(map[string]eventlog.Change, len(values))
		for _, v := range values {
			changes[v.Key] = eventlog.Change{Kind: eventlog.ChangePut, Value: v}
		}
		err = s.adopt(ctx, changes, true)
	}
	switch {
	case errors.Is(err, seal.ErrWrongKey), errors.Is(err, seal.ErrDamaged):
		return nil, err
	case err != nil:
		s.logger.Warn("the sources cannot be read from the log yet", "known_from_snapshot", s.Ready(), "error", err)
	}
	return s, nil
}

// recall loads the snapshot.
func (s *Store) recall() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.snapshot.load()
	switch {
	case err == nil:
		for _, k := range list {
			s.put(eventlog.Value{Key: k.ID, Data: k.Sealed, Revision: k.Revision}, false)
		}
		s.loaded = true
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, seal.ErrWrongKey):
		return err
	default:
		s.logger.Error("the sources have to be read from the log before webhooks for them are accepted", "error", err)
	}
	s.publish()
	return nil
}

// Run follows the bucket and applies what changes there, by whatever relay, until ctx ends or the log is closed; both are no error. It returns an error when the log was
// replaced, or when the keys turn out to be the wrong ones before anything was loaded.
func (s *Store) Run(ctx context.Context) error {
	var run map[string]eventlog.Change // what came since a restart; nil once it is complete
	for c, err := range s.o.Bucket.Watch(ctx) {
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, eventlog.ErrClosed)):
			return nil
		case err != nil:
			return fmt.Errorf("follow the sources: %w", err)
		case c.Kind == eventlog.ChangeRestart:
			run = map[string]eventlog.Change{}
		case c.Kind == eventlog.ChangeComplete:
			if err := s.adopt(ctx, run, !s.Ready()); errors.Is(err, seal.ErrWrongKey) || errors.Is(err, seal.ErrDamaged) {
				return err
			} else if err != nil {
				s.logger.Warn("the sources were read from the log, but not all that follows from them could be done", "error", err)
			}
			run = nil
		case run != nil:
			run[c.Value.Key] = c
		default:
			s.follow(c)
		}
	}
	return nil
}

// follow applies one change of the bucket.
func (s *Store) follow(c eventlog.Change) {
	id := c.Value.Key
	if id == canaryKey {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.stored[id]
	if is != nil && (c.Value.Revision < is.revision || c.Value.Revision == is.revision && is.item != nil) {
		// Known already, or older than what was written here.
		is.own = is.own && c.Value.Revision < is.revision
		return
	}
	if c.Kind == eventlog.ChangePut {
		s.put(c.Value, false)
	} else {
		delete(s.stored, id)
		s.tallies.drop(id)
		if is != nil && is.item != nil {
			s.logger.Info("a source was deleted by another relay", "source", namePrefix+id)
		}
	}
	s.publish()
	s.save()
}

// adopt makes the content of the bucket what is known, and sees to what has to be done at a start: it checks the keys, and seals anew what an old key has sealed.
// starting says that wrong keys are an error; later they cost only what other relays change.
func (s *Store) adopt(ctx context.Context, changes map[string]eventlog.Change, starting bool) error {
	if err := s.checkKeys(ctx, changes, starting); err != nil {
		return err
	}
	s.mu.Lock()
	for id, is := range s.stored {
		c, ok := changes[id]
		if is.own && (!ok || c.Value.Revision < is.revision) {
			continue // it was written here after the bucket was read
		}
		is.own = false
		if !ok || c.Kind != eventlog.ChangePut {
			delete(s.stored, id)
			s.tallies.drop(id)
		}
	}
	for id, c := range changes {
		if id == canaryKey || c.Kind != eventlog.ChangePut {
			continue
		}
		if is := s.stored[id]; is == nil || !is.own && (is.revision != c.Value.Revision || is.item.shown == nil) {
			s.put(c.Value, false)
		}
	}
	s.loaded = true
	s.publish()
	s.save()
	s.mu.Unlock()
	return s.renewAll(ctx)
}

// put takes a value of the bucket for what is known of its source. A value that cannot be used leaves what was known before; where nothing was, there is from now on a
// source that refuses. mu is held.
func (s *Store) put(v eventlog.Value, own bool) {
	src, err := s.decode(v)
	if err == nil {
		_, fixed := s.fixed[v.Key]
		if fixed {
			s.logger.Warn("a stored source is not used, because the sources file has one of its name", "source", src.GetName())
		}
		s.stored[v.Key] = &record{item: newItem(src, s.tallies.of(v.Key)), revision: v.Revision, sealed: v.Data, own: own}
		return
	}
	is := s.stored[v.Key]
	known := is != nil && is.item != nil && is.item.shown != nil
	s.logger.Error("the record of a source cannot be used", "source", namePrefix+v.Key, "going_on_with_the_one_before", known, "error", err)
	if !known {
		counted := s.tallies.of(v.Key)
		s.stored[v.Key] = &record{item: &item{endpoint: Endpoint{ID: v.Key, Unusable: true, tally: counted}, tally: counted}, revision: v.Revision, sealed: v.Data}
	}
}

// sourcePurpose binds a record to the source whose it is.
func sourcePurpose(id string) string { return "eventrelay source " + id }

// encode seals a source for the bucket.
func (s *Store) encode(id string, src *eventrelayv1.Source) ([]byte, error) {
	data, err := proto.Marshal(src)
	if err != nil {
		return nil, fmt.Errorf("encode %s%s: %w", namePrefix, id, err)
	}
	return s.o.Keys.Seal(data, sourcePurpose(id))
}

// decode returns the source that a value of the bucket holds, with its secrets and with what follows from where it lies.
func (s *Store) decode(v eventlog.Value) (*eventrelayv1.Source, error) {
	data, err := s.o.Keys.Open(v.Data, sourcePurpose(v.Key))
	if err != nil {
		return nil, err
	}
	src := &eventrelayv1.Source{}
	switch err := proto.Unmarshal(data, src); {
	case err != nil:
		return nil, errors.New("it is no source") // the error could quote it
	case src.GetName() != namePrefix+v.Key:
		return nil, errors.New("it is a source of another name")
	case src.GetRequireClientCertificate() && !s.o.ClientCertificates:
		return nil, errors.New("it requires a client certificate, which this server cannot check")
	}
	src.Etag = etag(v.Revision, src)
	src.Origin = eventrelayv1.SourceOrigin_SOURCE_ORIGIN_API
	return src, nil
}

// publish shows readers what is known. mu is held.
func (s *Store) publish() {
	items := make(map[string]*item, len(s.fixed)+len(s.stored))
	for id, is := range s.stored {
		if is.item != nil {
			items[id] = is.item
		}
	}
	maps.Copy(items, s.fixed)
	s.current.Store(&view{Set: setOf(items), loaded: s.loaded})
}

// save writes the snapshot. What the bucket holds is safe without it, so that an error is no caller's. mu is held.
func (s *Store) save() {
	list := make([]kept, 0, len(s.stored))
	for id, is := range s.stored {
		if is.item != nil {
			list = append(list, kept{ID: id, Revision: is.revision, Sealed: is.sealed})
		}
	}
	slices.SortFunc(list, func(a, b kept) int { return strings.Compare(a.ID, b.ID) })
	if err := s.snapshot.save(list); err != nil {
		s.logger.Error("while the log is away, a restart would not know the newest sources", "error", err)
	}
}

// Ready reports whether the stored sources are known. Until they are, a name that is not found means nothing.
func (s *Store) Ready() bool { return s.current.Load().loaded }

// Accepts reports whether there is a source that notifications are accepted for: those of a file are known from the start, whatever the others are.
func (s *Store) Accepts() bool { return s.Ready() || len(s.fixed) > 0 }

// Endpoint returns what checks the senders of the source with that id.
func (s *Store) Endpoint(id string) (Endpoint, bool) { return s.current.Load().Endpoint(id) }

// Get returns a copy of the source of that name, without its secrets and with what is output only, or an error that wraps ErrNotFound or ErrNotLoaded.
func (s *Store) Get(name string) (*eventrelayv1.Source, error) {
	is, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return s.show(is), nil
}

// List returns copies of all sources, by name, as Get returns them, or ErrNotLoaded.
func (s *Store) List() ([]*eventrelayv1.Source, error) {
	now := s.current.Load()
	if !now.loaded {
		return nil, ErrNotLoaded
	}
	list := make([]*eventrelayv1.Source, 0, len(now.names))
	for _, name := range now.names {
		list = append(list, s.show(now.find(name)))
	}
	return list, nil
}

// Credentials returns what calls to the provider of the source of that name are made with, or an error as Get does.
func (s *Store) Credentials(name string) (Credentials, error) {
	is, err := s.find(name)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{Source: name, Provider: is.endpoint.Provider, whole: is.whole, uses: is.uses}, nil
}

// Count adds to the events of the source with that id: those that are new in the log, and those that were in it already. A source that is not known is passed over.
func (s *Store) Count(id string, events, duplicates int) {
	if is := s.current.Load().items[id]; is != nil {
		is.tally.events.Add(uint64(events))
		is.tally.duplicates.Add(uint64(duplicates))
	}
}

// find returns the item of a source that can be shown.
func (s *Store) find(name string) (*item, error) {
	now := s.current.Load()
	is := now.find(name)
	switch {
	case is != nil && is.shown != nil:
		return is, nil
	case !now.loaded:
		return nil, ErrNotLoaded
	}
	return nil, &StateError{Name: name, Err: ErrNotFound}
}

// show returns what the API shows of a source.
func (s *Store) show(is *item) *eventrelayv1.Source {
	out := proto.CloneOf(is.shown)
	if out.GetOrigin() == eventrelayv1.SourceOrigin_SOURCE_ORIGIN_UNSPECIFIED {
		out.Origin = eventrelayv1.SourceOrigin_SOURCE_ORIGIN_FILE
	}
	out.SecretUses = secretUses(is.uses)
	out.Stats = is.tally.stats(s.since)
	return out
}
