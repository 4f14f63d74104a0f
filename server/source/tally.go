package source

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// tallies are the tallies of all sources by id, since the start. They are safe for concurrent use.
type tallies struct {
	mu   sync.Mutex // guards byID
	byID map[string]*tally
}

// of returns the tally of a source, which stays the same when the source changes.
func (t *tallies) of(id string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID = make(map[string]*tally)
	}
	if t.byID[id] == nil {
		t.byID[id] = &tally{refused: make(map[string]uint64)}
	}
	return t.byID[id]
}

// drop forgets a source that was deleted.
func (t *tallies) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
}

// tally counts what has come in for one source. It is safe for concurrent use.
type tally struct {
	accepted, events, duplicates atomic.Uint64
	last                         atomic.Int64 // when a notification was last accepted, Unix nanoseconds

	mu      sync.Mutex // guards what follows
	refused map[string]uint64
	// shown is when each secret was last shown, Unix nanoseconds, by the sum of its field and value: so it follows a secret that takes another place in a rotation.
	shown map[[sha256.Size]byte]*atomic.Int64
}

// use is a secret that is set, by the field it stands in, and when it was last used.
type use struct {
	field string
	at    *atomic.Int64
}

func (u use) now() { u.at.Store(time.Now().UnixNano()) }

// uses lists the secrets of a source in the order of their fields. Those that were there before keep their times.
func (t *tally) uses(src *eventrelayv1.Source) []use {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := make(map[[sha256.Size]byte]*atomic.Int64)
	var list []use
	add := func(kind, field, secret string) {
		if secret == "" {
			return
		}
		sum := sha256.Sum256([]byte(kind + "\x00" + secret))
		at := next[sum]
		if at == nil {
			at = t.shown[sum]
		}
		if at == nil {
			at = &atomic.Int64{}
		}
		next[sum] = at
		list = append(list, use{field, at})
	}
	for i, secret := range src.GetAppSecrets() {
		add("app_secrets", fmt.Sprintf("app_secrets[%d]", i), secret)
	}
	add("verify_token", "verify_token", src.GetVerifyToken())
	add("access_token", "access_token", src.GetAccessToken())
	add("partner_api_key", "partner_api_key", src.GetPartnerApiKey())
	for _, name := range slices.Sorted(maps.Keys(src.GetHeaders())) {
		field := fmt.Sprintf("headers[%q]", name)
		add(field, field, src.GetHeaders()[name])
	}
	add("channel_api_key", "channel_api_key", src.GetChannelApiKey())
	t.shown = next
	return list
}

// stats is what the tally has counted since the start.
func (t *tally) stats(since time.Time) *eventrelayv1.SourceStats {
	t.mu.Lock()
	refused := maps.Clone(t.refused)
	t.mu.Unlock()
	return &eventrelayv1.SourceStats{
		SinceTime:             timestamppb.New(since),
		AcceptedNotifications: t.accepted.Load(),
		Events:                t.events.Load(),
		DuplicateEvents:       t.duplicates.Load(),
		RefusedNotifications:  refused,
		LastNotificationTime:  moment(t.last.Load()),
	}
}

func (t *tally) accept(at time.Time) {
	t.accepted.Add(1)
	t.last.Store(at.UnixNano())
}

func (t *tally) refuse(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused[reason]++
}

// secretUses is what the API shows of the uses.
func secretUses(uses []use) []*eventrelayv1.SecretUse {
	list := make([]*eventrelayv1.SecretUse, 0, len(uses))
	for _, u := range uses {
		list = append(list, &eventrelayv1.SecretUse{Field: u.field, LastUsedTime: moment(u.at.Load())})
	}
	return list
}

// moment is a time given in Unix nanoseconds; nil for 0.
func moment(at int64) *timestamppb.Timestamp {
	if at == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, at))
}
