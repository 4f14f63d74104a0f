package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrKeyExists is returned by Bucket.Create for a key that has a value.
	ErrKeyExists = errors.New("key exists in the bucket")
	// ErrKeyNotFound is returned by Bucket.Get for a key without a value.
	ErrKeyNotFound = errors.New("no such key in the bucket")
	// ErrRevision is returned by Bucket.Update and Bucket.Delete where the key's value is not the one of that revision any more.
	ErrRevision = errors.New("the value in the bucket has changed")
)

// bucketPrefix is what JetStream puts before the name of a bucket to name its stream.
const bucketPrefix = "KV_"

// Bucket holds values by key beside the events: what relays that share a log have to share besides. There is one value a key, the newest. All methods may be called
// at once by many goroutines, and end with ErrUnavailable while the log cannot be reached.
//
// A write that ended with ErrUnavailable may have been stored all the same; what is there now is told by Get.
type Bucket struct {
	log  *Log
	name string

	mu   sync.Mutex // guards what follows; held while the bucket is looked for
	link *link      // the one that kv belongs to
	kv   jetstream.KeyValue
}

// Value is the value of a key.
type Value struct {
	Key  string
	Data []byte
	// Revision ascends with every write to the bucket, and is never 0.
	Revision uint64
	// Time is when it was stored.
	Time time.Time
}

// Bucket returns the bucket of that name: letters, digits, - and _. It is made, on disk and with as many copies as the log, when it is first used; no other call makes one.
func (l *Log) Bucket(name string) *Bucket { return &Bucket{log: l, name: name} }

// Get returns the value of a key, or ErrKeyNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (Value, error) {
	var found Value
	err := b.call(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		entry, err := kv.Get(ctx, key)
		if err == nil {
			found = valueOf(entry)
		}
		return err
	})
	if err != nil {
		return Value{}, fmt.Errorf("get %s from bucket %s: %w", key, b.name, err)
	}
	return found, nil
}

// Create stores a value under a key that has none, or returns ErrKeyExists. When it returns without an error the value is durable, as with Append.
func (b *Bucket) Create(ctx context.Context, key string, data []byte) (revision uint64, err error) {
	err = b.write(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		revision, err = kv.Create(ctx, key, data)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("create %s in bucket %s: %w", key, b.name, err)
	}
	return revision, nil
}

// Update replaces the value of that revision, or returns ErrRevision. When it returns without an error the value is durable.
func (b *Bucket) Update(ctx context.Context, key string, data []byte, revision uint64) (next uint64, err error) {
	err = b.write(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		next, err = kv.Update(ctx, key, data, revision)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("update %s in bucket %s: %w", key, b.name, err)
	}
	return next, nil
}

// Delete removes the value of that revision, or returns ErrRevision. When it returns without an error that is durable.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	err := b.write(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		return kv.Delete(ctx, key, jetstream.LastRevision(revision))
	})
	if err != nil {
		return fmt.Errorf("delete %s from bucket %s: %w", key, b.name, err)
	}
	return nil
}

// List returns all values, in no order.
func (b *Bucket) List(ctx context.Context) ([]Value, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var values []Value
	err := b.watch(ctx, func(c Change) bool {
		if c.Kind == ChangePut {
			values = append(values, c.Value)
		}
		return c.Kind != ChangeComplete
	})
	if !errors.Is(err, errWatchEnded) {
		return nil, fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	return values, nil
}

// Change is what Watch yields.
type Change struct {
	Kind ChangeKind
	// Value is what was put, or with ChangeDelete the key and the revision of the deletion.
	Value Value
}

// ChangeKind says what a change is.
type ChangeKind int

const (
	// ChangeRestart begins a run: all values follow, and what is not among them up to ChangeComplete is not in the bucket any more.
	ChangeRestart ChangeKind = iota + 1
	// ChangePut is a new value of a key.
	ChangePut
	// ChangeDelete is the end of a value.
	ChangeDelete
	// ChangeComplete follows when all values that were there at ChangeRestart have been yielded. What comes from then on has just happened.
	ChangeComplete
)

// Watch yields the values of the bucket and then what changes, in the order of the revisions. After a lost connection it begins a new run by itself. It ends with ctx, with
// Close or when the log was replaced, which it says by an error.
func (b *Bucket) Watch(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, stop := b.log.scope(ctx)
		defer stop()
		for backoff := minBackoff; ; {
			err := b.watch(ctx, func(c Change) bool {
				if c.Kind == ChangeComplete {
					backoff = minBackoff
				}
				return yield(c, nil)
			})
			switch {
			case errors.Is(err, errWatchEnded):
				return
			case ctx.Err() != nil:
				yield(Change{}, context.Cause(ctx))
				return
			case !errors.Is(err, ErrUnavailable):
				yield(Change{}, fmt.Errorf("watch bucket %s: %w", b.name, err))
				return
			}
			b.log.log.Debug("watch of a bucket begins again", "bucket", b.name, "cause", err)
			select {
			case <-time.After(backoff):
			case <-ctx.Done():
			}
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

// errWatchEnded says that whom a watch yields to wants no more.
var errWatchEnded = errors.New("watch was stopped")

// watch yields one run.
func (b *Bucket) watch(ctx context.Context, yield func(Change) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k, kv, err := b.open(ctx)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		b.forget(kv)
		return b.log.wrap(ctx, err)
	}
	defer func() {
		_ = w.Stop()            // fails when the connection is gone, and then so is the watch
		for range w.Updates() { // the callback of the client must not be left waiting
		}
	}()
	if !yield(Change{Kind: ChangeRestart}) {
		return errWatchEnded
	}
	lost := k.sub.StatusChanged(nats.CLOSED)
	defer k.sub.RemoveStatusListener(lost)
	for {
		var c Change
		select {
		case entry, ok := <-w.Updates():
			switch {
			case !ok:
				return fmt.Errorf("%w: the watch of bucket %s ended", ErrUnavailable, b.name)
			case entry == nil:
				c = Change{Kind: ChangeComplete}
			case entry.Operation() == jetstream.KeyValuePut:
				c = Change{Kind: ChangePut, Value: valueOf(entry)}
			default:
				c = Change{Kind: ChangeDelete, Value: valueOf(entry)}
			}
		case <-lost:
			return fmt.Errorf("%w: connection lost", ErrUnavailable)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !yield(c) {
			return errWatchEnded
		}
	}
}

// call does something with the bucket, within callTimeout, and makes of its error one of this package.
func (b *Bucket) call(ctx context.Context, do func(context.Context, jetstream.KeyValue) error) error {
	ctx, stop := b.log.scope(ctx)
	defer stop()
	_, kv, err := b.open(ctx)
	if err != nil {
		return err
	}
	return b.settle(ctx, kv, do)
}

// write is call for what changes something, and has it on disk when it returns.
func (b *Bucket) write(ctx context.Context, do func(context.Context, jetstream.KeyValue) error) error {
	ctx, stop := b.log.scope(ctx)
	defer stop()
	k, kv, err := b.open(ctx)
	if err != nil {
		return err
	}
	err = b.settle(ctx, kv, do)
	if k.srv == nil {
		return err
	}
	if err == nil {
		if err = k.synced(b.log.folder.SyncMessages(bucketPrefix + b.name)); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	if errors.Is(err, ErrUnavailable) {
		// A store that met a write error does not answer any more, until it is opened anew.
		b.log.fault(k, err)
	}
	return err
}

func (b *Bucket) settle(ctx context.Context, kv jetstream.KeyValue, do func(context.Context, jetstream.KeyValue) error) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := do(bounded, kv)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return ErrKeyNotFound
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return ErrRevision
	case errors.Is(err, jetstream.ErrKeyExists):
		return ErrKeyExists
	case errors.Is(err, jetstream.ErrInvalidKey):
		return err
	}
	b.forget(kv)
	return b.log.wrap(ctx, err)
}

// open returns the bucket over the link in use, and makes it if there is none. This is the one place where a bucket meets the connection.
func (b *Bucket) open(ctx context.Context) (*link, jetstream.KeyValue, error) {
	k, err := b.log.link(ctx)
	if err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kv != nil && b.link == k {
		return k, b.kv, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kv, err := b.ensure(ctx, k)
	if err != nil {
		return nil, nil, fmt.Errorf("open bucket %s: %w", b.name, b.log.wrap(ctx, err))
	}
	b.link, b.kv = k, kv
	return k, kv, nil
}

// ensure finds the bucket or makes it, with as many copies as the log has.
func (b *Bucket) ensure(ctx context.Context, k *link) (jetstream.KeyValue, error) {
	want := jetstream.KeyValueConfig{Bucket: b.name, Description: "Kept by eventrelay beside its events.", History: 1, Storage: jetstream.FileStorage, Replicas: k.replicas}
	kv, err := k.js.KeyValue(ctx, b.name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if err := b.unrecovered(k); err != nil {
			return nil, err
		}
		if kv, err = k.js.CreateKeyValue(ctx, want); errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = k.js.KeyValue(ctx, b.name) // another relay was faster
		}
	}
	if err != nil {
		return nil, err
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, err
	}
	if is := status.Config(); is.Replicas != want.Replicas {
		is.Replicas = want.Replicas
		if kv, err = k.js.UpdateKeyValue(ctx, is); err != nil {
			return nil, err
		}
	}
	if k.srv != nil {
		err = k.synced(b.log.folder.SyncTree(b.folder()))
	}
	return kv, err
}

// unrecovered refuses to make a bucket anew where the embedded server has one on disk that it could not recover.
func (b *Bucket) unrecovered(k *link) error {
	if k.srv == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(b.folder(), server.JetStreamMetaFile)); err == nil {
		return fmt.Errorf("it was not recovered from %s", b.folder())
	}
	return nil
}

// forget makes the next call look for the bucket again.
func (b *Bucket) forget(kv jetstream.KeyValue) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kv == kv {
		b.link, b.kv = nil, nil
	}
}

// folder is where the embedded server keeps the bucket.
func (b *Bucket) folder() string {
	return b.log.folder.Stream(bucketPrefix + b.name)
}

func valueOf(entry jetstream.KeyValueEntry) Value {
	return Value{Key: entry.Key(), Data: entry.Value(), Revision: entry.Revision(), Time: entry.Created()}
}
