package source

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
)

// maxAttempts bounds how often a change without an etag is tried while others change the same source.
const maxAttempts = 10

// Create stores a new source under an id and returns it as Get does. When it returns without an error the source is durable and its webhook is accepted here.
// The error wraps ErrInvalid, ErrExists or eventlog.ErrUnavailable.
func (s *Store) Create(ctx context.Context, id string, src *eventrelayv1.Source) (*eventrelayv1.Source, error) {
	name := namePrefix + id
	if src == nil {
		src = &eventrelayv1.Source{}
	}
	src = proto.CloneOf(src)
	clearOutput(src)
	src.Name = name
	src.CreateTime = timestamppb.Now()
	src.UpdateTime = src.GetCreateTime()
	if problems := check(src, s.o.ClientCertificates); len(problems) > 0 {
		return nil, &InvalidError{Violations: problems}
	}
	if s.fixed[id] != nil {
		return nil, &StateError{Name: name, Err: ErrExists}
	}
	sealed, err := s.encode(id, src)
	if err != nil {
		return nil, err
	}
	revision, err := s.o.Bucket.Create(ctx, id, sealed)
	switch {
	case errors.Is(err, eventlog.ErrKeyExists):
		return nil, &StateError{Name: name, Err: ErrExists}
	case err != nil:
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	s.written(eventlog.Value{Key: id, Data: sealed, Revision: revision})
	s.logger.Info("a source was created", "source", name)
	return s.Get(name)
}

// Update changes the fields of a source that the paths name, or those that are set where there are none, and returns the source as Get does. src has the name, the new values
// and, where the change is to be made from a certain state only, the etag. When it returns without an error the change is durable and counts here. The error wraps ErrInvalid,
// ErrNotFound, ErrReadOnly, ErrStale, ErrUnreadable or eventlog.ErrUnavailable.
func (s *Store) Update(ctx context.Context, src *eventrelayv1.Source, paths []string) (*eventrelayv1.Source, error) {
	return s.change(ctx, src.GetName(), src.GetEtag(), func(is *eventrelayv1.Source) (*eventrelayv1.Source, bool, error) {
		return merged(is, src, paths)
	})
}

// RotateSecret makes a secret the first app secret of a source, with the one before it still valid; without one it ends the rotation, so that only the first stays. It returns the source
// as Get does; durability and errors are those of Update.
func (s *Store) RotateSecret(ctx context.Context, name, secret, tag string) (*eventrelayv1.Source, error) {
	changed, err := s.change(ctx, name, tag, func(is *eventrelayv1.Source) (*eventrelayv1.Source, bool, error) {
		to := proto.CloneOf(is)
		secrets := is.GetAppSecrets()
		switch {
		case len(secrets) == 0:
			return nil, false, invalid("name", "this source has no app secret to rotate; change its headers instead, by an update")
		case secret == "":
			to.AppSecrets = secrets[:1]
		case secret == secrets[0]:
			return nil, false, invalid("app_secret", "it is the first secret already")
		default:
			to.AppSecrets = []string{secret, secrets[0]}
		}
		return to, true, nil
	})
	if wrong, ok := errors.AsType[*InvalidError](err); ok {
		for i, v := range wrong.Violations {
			if strings.HasPrefix(v.Field, "app_secrets[") {
				wrong.Violations[i].Field = "app_secret" // the field of this call
			}
		}
	}
	return changed, err
}

// Delete removes a source, if an etag is given only while it is the source's. When it returns without an error the source is gone durably, and unknown here. The error wraps
// ErrNotFound, ErrReadOnly, ErrStale or eventlog.ErrUnavailable.
func (s *Store) Delete(ctx context.Context, name, tag string) error {
	id := strings.TrimPrefix(name, namePrefix)
	for range maxAttempts {
		v, _, err := s.fetch(ctx, name, tag)
		if err != nil && (tag != "" || !errors.Is(err, ErrUnreadable)) {
			return err
		}
		err = s.o.Bucket.Delete(ctx, id, v.Revision)
		switch {
		case err == nil:
			s.deleted(id, v.Revision)
			s.logger.Info("a source was deleted", "source", name)
			return nil
		case !errors.Is(err, eventlog.ErrRevision):
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return &StateError{Name: name, Err: ErrStale}
}

// change reads a source from the bucket, has it changed, and writes it back if nobody else has changed it in between. Without an etag it then tries again.
func (s *Store) change(ctx context.Context, name, tag string, edit func(is *eventrelayv1.Source) (to *eventrelayv1.Source, changed bool, err error)) (*eventrelayv1.Source, error) {
	id := strings.TrimPrefix(name, namePrefix)
	for range maxAttempts {
		v, is, err := s.fetch(ctx, name, tag)
		if err != nil {
			return nil, err
		}
		to, changed, err := edit(is)
		if err != nil {
			return nil, err
		}
		if !changed {
			s.written(v)
			return s.Get(name)
		}
		clearStored(to)
		to.UpdateTime = timestamppb.Now()
		if problems := check(to, s.o.ClientCertificates); len(problems) > 0 {
			return nil, &InvalidError{Violations: problems}
		}
		sealed, err := s.encode(id, to)
		if err != nil {
			return nil, err
		}
		revision, err := s.o.Bucket.Update(ctx, id, sealed, v.Revision)
		switch {
		case err == nil:
			s.written(eventlog.Value{Key: id, Data: sealed, Revision: revision})
			s.logger.Info("a source was changed", "source", name)
			return s.Get(name)
		case !errors.Is(err, eventlog.ErrRevision):
			return nil, fmt.Errorf("update %s: %w", name, err)
		}
	}
	return nil, &StateError{Name: name, Err: ErrStale}
}

// fetch returns a stored source as the bucket has it now: another relay may have changed it, and told its caller the etag, before the watch has said so here.
func (s *Store) fetch(ctx context.Context, name, tag string) (eventlog.Value, *eventrelayv1.Source, error) {
	none := eventlog.Value{}
	if !validName.MatchString(name) {
		return none, nil, invalid("name", "it must be sources/{id}, the id being 1 to 63 of a-z, 0-9 and -, with a letter or digit first and last")
	}
	id := strings.TrimPrefix(name, namePrefix)
	if s.fixed[id] != nil {
		return none, nil, &StateError{Name: name, Err: ErrReadOnly}
	}
	v, err := s.o.Bucket.Get(ctx, id)
	switch {
	case errors.Is(err, eventlog.ErrKeyNotFound):
		return none, nil, &StateError{Name: name, Err: ErrNotFound}
	case err != nil:
		return none, nil, fmt.Errorf("read %s: %w", name, err)
	}
	src, err := s.decode(v)
	if err != nil {
		s.logger.Error("the record of a source cannot be used", "source", name, "error", err)
		return v, nil, &StateError{Name: name, Err: ErrUnreadable}
	}
	if tag != "" && tag != src.GetEtag() {
		return v, src, &StateError{Name: name, Etag: src.GetEtag(), Err: ErrStale}
	}
	return v, src, nil
}

// written takes over what this store has written, so that it counts here at once.
func (s *Store) written(v eventlog.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.stored[v.Key]; is != nil && is.revision >= v.Revision {
		return // the watch was faster
	}
	s.put(v, true)
	s.publish()
	s.save()
}

// deleted takes over that this store has deleted the value of a revision.
func (s *Store) deleted(id string, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.stored[id]; is != nil && is.revision > revision {
		return // it has been created anew
	}
	s.tallies.drop(id)
	// The deletion itself has at least the next revision. Until the watch tells of it, what it says of the time before must not bring the source back.
	s.stored[id] = &record{revision: revision + 1, own: true}
	s.publish()
	s.save()
}

// clearStored unsets what follows from where a source is stored, so that it is not stored with it.
func clearStored(src *eventrelayv1.Source) {
	created := src.GetCreateTime()
	clearOutput(src)
	src.CreateTime = created
}

// etag is a word for the state of a source. It is made of what every change changes, and of nothing that is secret.
func etag(revision uint64, src *eventrelayv1.Source) string {
	data := binary.BigEndian.AppendUint64(nil, revision)
	data = binary.BigEndian.AppendUint64(data, uint64(src.GetUpdateTime().AsTime().UnixNano()))
	sum := sha256.Sum256(append(data, src.GetName()...))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
