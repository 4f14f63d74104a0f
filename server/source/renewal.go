package source

import (
	"context"
	"errors"
	"fmt"

	"eventrelay/server/eventlog"
	"eventrelay/server/seal"
)

// checkKeys sees whether the keys are those that the bucket is sealed under, and marks a new bucket with them.
func (s *Store) checkKeys(ctx context.Context, changes map[string]eventlog.Change, starting bool) error {
	canary, err := s.canary(ctx, changes)
	if err != nil {
		return err
	}
	switch _, err := s.o.Keys.Open(canary.Data, canaryPurpose); {
	case err == nil:
		return s.renew(ctx, canaryKey, canary, canaryPurpose)
	case starting:
		return fmt.Errorf("read the sources from the log: %w", err)
	default:
		s.logger.Error("another relay stores the sources under a key that is not in the key file of this one; give all relays the same keys", "error", err)
		return nil
	}
}

// canary returns the value that tells the keys, which it stores if there is none.
func (s *Store) canary(ctx context.Context, changes map[string]eventlog.Change) (eventlog.Value, error) {
	if c, ok := changes[canaryKey]; ok && c.Kind == eventlog.ChangePut {
		return c.Value, nil
	}
	if err := s.restore(ctx, changes); err != nil {
		return eventlog.Value{}, err
	}
	data, err := s.o.Keys.Seal([]byte("eventrelay"), canaryPurpose)
	if err != nil {
		return eventlog.Value{}, err
	}
	revision, err := s.o.Bucket.Create(ctx, canaryKey, data)
	if errors.Is(err, eventlog.ErrKeyExists) {
		// Another relay was faster, and may have other keys.
		return s.o.Bucket.Get(ctx, canaryKey)
	}
	return eventlog.Value{Key: canaryKey, Data: data, Revision: revision}, err
}

// restore fills a bucket that was never used from the snapshot: the log was wiped or is another one, and sources that are gone would be notifications that are lost. A bucket
// without a canary that holds sources all the same must be readable, or the canary would be a lie.
func (s *Store) restore(ctx context.Context, changes map[string]eventlog.Change) error {
	var sealed, opened int
	for id, c := range changes {
		if c.Kind != eventlog.ChangePut {
			continue
		}
		sealed++
		if _, err := s.o.Keys.Open(c.Value.Data, sourcePurpose(id)); err == nil {
			opened++
		}
	}
	if sealed > 0 {
		if opened == 0 {
			return fmt.Errorf("read the sources from the log: %w", seal.ErrWrongKey)
		}
		return nil
	}
	for id, v := range s.known() {
		revision, err := s.o.Bucket.Create(ctx, id, v.Data)
		if errors.Is(err, eventlog.ErrKeyExists) {
			continue
		}
		if err != nil {
			return fmt.Errorf("restore %s%s: %w", namePrefix, id, err)
		}
		s.logger.Warn("the log had no sources; one was restored from the snapshot", "source", namePrefix+id)
		v.Revision = revision // which need not be higher than the one in the former bucket
		s.mu.Lock()
		s.put(v, true)
		s.mu.Unlock()
	}
	return nil
}

// known returns the values of all sources.
func (s *Store) known() map[string]eventlog.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := make(map[string]eventlog.Value, len(s.stored))
	for id, is := range s.stored {
		if is.item != nil {
			values[id] = eventlog.Value{Key: id, Data: is.sealed, Revision: is.revision}
		}
	}
	return values
}

// renewAll seals anew, once after a start, what an old key has sealed.
func (s *Store) renewAll(ctx context.Context) error {
	s.mu.Lock()
	done := s.renewed
	s.renewed = true
	s.mu.Unlock()
	if done {
		return nil
	}
	for id, v := range s.known() {
		if err := s.renew(ctx, id, v, sourcePurpose(id)); err != nil && !errors.Is(err, seal.ErrWrongKey) && !errors.Is(err, seal.ErrDamaged) {
			return err
		}
	}
	return nil
}

// renew seals a value under the first key if it is under another one, so that the other can be dropped. A value that somebody changes at the same time is sealed anew by that.
func (s *Store) renew(ctx context.Context, key string, v eventlog.Value, purpose string) error {
	if s.o.Keys.Current(v.Data) {
		return nil
	}
	data, err := s.o.Keys.Open(v.Data, purpose)
	if err != nil {
		return err
	}
	sealed, err := s.o.Keys.Seal(data, purpose)
	if err != nil {
		return err
	}
	revision, err := s.o.Bucket.Update(ctx, key, sealed, v.Revision)
	switch {
	case errors.Is(err, eventlog.ErrRevision):
		return nil
	case err != nil:
		return fmt.Errorf("seal under the first key: %w", err)
	}
	s.logger.Info("sealed anew under the first key", "record", key)
	if key != canaryKey {
		s.written(eventlog.Value{Key: key, Data: sealed, Revision: revision})
	}
	return nil
}
