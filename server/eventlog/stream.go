package eventlog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Keys of the stream's metadata. They are stored state.
const (
	// metaID is the identity of the log.
	metaID = "eventrelay-log"
	// metaMissing is how many entries between the first and the last were already missing when that identity was taken.
	metaMissing = "eventrelay-missing"
)

// ensureStream finds the stream or makes it, brings its settings up to date, and settles which log this is. The first link
// takes the identity; a later one that finds another gives ErrReplaced. Whether the events are all there is asked of the embedded
// server only: with a URL several relays share the log, none may change its identity under the others, and what the servers keep
// is their operator's business.
func (l *Log) ensureStream(ctx context.Context, k *link) error {
	info, err := k.info(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		info, err = l.createStream(ctx, k)
	}
	if err != nil {
		return l.wrap(ctx, err)
	}
	if info.Config.Sealed { // which cannot be undone
		return fmt.Errorf("%w: stream %s is sealed, nothing can be added to it", ErrRefused, streamName)
	}
	id, missing := info.Config.Metadata[metaID], info.Config.Metadata[metaMissing]
	if id == "" { // a stream that somebody prepared for us
		id = newID()
	}
	if k.srv != nil {
		if why, gaps := l.inconsistent(id, missing, stateOf(info)); why != "" {
			fresh := newID()
			l.log.Error("event log is not what it was, it gets a new identity and old cursors end", "found", why, "was", id, "is", fresh)
			id, missing = fresh, strconv.FormatUint(gaps, 10)
		}
	}
	want := l.config(info.Config, id, missing)
	k.replicas = want.Replicas
	if !sameConfig(info.Config, want) {
		if _, err := k.js.UpdateStream(ctx, want); err != nil {
			return fmt.Errorf("update stream %s: %w", streamName, l.wrap(ctx, err))
		}
	}
	switch l.ID() {
	case id:
	case "":
		l.id.Store(&id)
	default:
		return ErrReplaced
	}
	if k.srv != nil && l.acked.Read(id) == 0 {
		// The mark is of another log or of none. What is there now is what readers will see.
		return l.acked.Write(id, stateOf(info).Last)
	}
	return nil
}

// createStream makes the stream, which only the first link may do: later, a stream that is gone is another log's beginning.
func (l *Log) createStream(ctx context.Context, k *link) (*jetstream.StreamInfo, error) {
	if l.ID() != "" {
		if k.srv == nil {
			return nil, ErrReplaced
		}
		return nil, fmt.Errorf("%w: stream %s was not recovered", ErrUnavailable, streamName)
	}
	if k.srv != nil {
		// The server goes on without a stream that it cannot recover. Making it anew would bury what is there.
		if _, err := os.Stat(filepath.Join(l.folder.Stream(streamName), server.JetStreamMetaFile)); err == nil {
			return nil, fmt.Errorf("stream %s in %s was not recovered", streamName, l.opts.Dir)
		}
	}
	_, err := k.js.CreateStream(ctx, l.config(jetstream.StreamConfig{}, newID(), ""))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another relay was faster
		return nil, fmt.Errorf("create stream %s: %w", streamName, err)
	}
	return k.info(ctx)
}

// inconsistent compares what was recovered with what must be there, and tells what is wrong and how many entries are missing
// between the first and the last. Nothing of ours deletes single entries, and none that was acknowledged may vanish from the end.
func (l *Log) inconsistent(id, missing string, st State) (why string, gaps uint64) {
	gaps = st.Last + 1 - st.First - st.Events
	known, _ := strconv.ParseUint(missing, 10, 64) // absent is none
	if gaps > known {
		return fmt.Sprintf("%d entries are missing between %d and %d", gaps, st.First, st.Last), gaps
	}
	if acked := l.acked.Read(id); st.Last < acked {
		return fmt.Sprintf("it ends at %d, but %d was acknowledged", st.Last, acked), gaps
	}
	return "", gaps
}

// config is the stream as it has to be, given what it is.
func (l *Log) config(is jetstream.StreamConfig, id, missing string) jetstream.StreamConfig {
	limit := func(n int64) int64 {
		if n <= 0 {
			return -1
		}
		return n
	}
	// Settings not named here are left as an operator may have set them: placement, compression.
	is.Name = streamName
	is.Description = "Events received by eventrelay."
	is.Subjects = []string{subjectPrefix + ">"}
	is.Retention = jetstream.LimitsPolicy
	is.Discard = jetstream.DiscardOld
	is.Storage = jetstream.FileStorage
	if l.opts.Replicas > 0 {
		is.Replicas = l.opts.Replicas
	}
	is.Replicas = max(is.Replicas, 1)
	is.MaxAge = l.opts.MaxAge
	is.MaxBytes = limit(l.opts.MaxBytes)
	is.MaxMsgs = limit(l.opts.MaxEvents)
	is.Duplicates = l.opts.DuplicateWindow
	// What a prepared stream may have: each of these would lose events, or the word that they are stored.
	is.MaxMsgsPerSubject = -1
	is.MaxMsgSize = -1
	is.NoAck = false
	is.AllowDirect = true
	is.AllowAtomicPublish = true
	is.Metadata = maps.Clone(is.Metadata)
	if is.Metadata == nil {
		is.Metadata = map[string]string{}
	}
	is.Metadata[metaID] = id
	if missing != "" {
		is.Metadata[metaMissing] = missing
	}
	return is
}

// sameConfig compares what config sets.
func sameConfig(a, b jetstream.StreamConfig) bool {
	return a.Description == b.Description && len(a.Subjects) == 1 && a.Subjects[0] == b.Subjects[0] &&
		a.Retention == b.Retention && a.Discard == b.Discard && a.Storage == b.Storage && a.Replicas == b.Replicas &&
		a.MaxMsgsPerSubject == b.MaxMsgsPerSubject && a.MaxMsgSize == b.MaxMsgSize && a.NoAck == b.NoAck &&
		a.MaxAge == b.MaxAge && a.MaxBytes == b.MaxBytes && a.MaxMsgs == b.MaxMsgs && a.Duplicates == b.Duplicates &&
		a.AllowDirect == b.AllowDirect && a.AllowAtomicPublish == b.AllowAtomicPublish && maps.Equal(a.Metadata, b.Metadata)
}

// refusals are the answers to making or updating the stream that stay the same until somebody changes a setting.
var refusals = map[jetstream.ErrorCode]bool{
	jetstream.ErrorCode(server.JSNotEnabledForAccountErr):       true,
	jetstream.ErrorCode(server.JSNoLimitsErr):                   true,
	jetstream.ErrorCode(server.JSMaximumStreamsLimitErr):        true,
	jetstream.ErrorCode(server.JSStreamInvalidConfigF):          true,
	jetstream.ErrorCode(server.JSStreamInvalidErr):              true,
	jetstream.ErrorCode(server.JSStreamMaxBytesRequired):        true,
	jetstream.ErrorCode(server.JSStreamMaxStreamBytesExceeded):  true,
	jetstream.ErrorCode(server.JSStreamMirrorNotUpdatableErr):   true,
	jetstream.ErrorCode(server.JSStreamReplicasNotSupportedErr): true,
	jetstream.ErrorCode(server.JSStreamSubjectOverlapErr):       true,
}

// explain tells, of an error met on the way to the stream, whether the server will go on refusing it.
func (k *link) explain(err error) error {
	var answer *jetstream.APIError
	if k.srv != nil {
		return err // its refusals are faults of our own
	}
	if errors.As(err, &answer) && refusals[answer.ErrorCode] {
		return fmt.Errorf("%w: stream %s: %s (%d)", ErrRefused, streamName, answer.Description, answer.ErrorCode)
	}
	if has, _ := k.sub.ConnectedServerJetStream(); !has && (errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrJetStreamNotEnabled)) {
		return fmt.Errorf("%w: JetStream is not enabled there (nats-server --jetstream)", ErrRefused)
	}
	return err
}

// newID returns 32 random hex characters.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// info asks the leader for the stream.
func (k *link) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	s, err := k.js.Stream(ctx, streamName)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}

func stateOf(info *jetstream.StreamInfo) State {
	st := State{First: info.State.FirstSeq, Last: info.State.LastSeq, Events: info.State.Msgs, Bytes: info.State.Bytes}
	if st.Events == 0 {
		st.First = st.Last + 1
	}
	return st
}
