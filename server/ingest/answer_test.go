package ingest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/source"
	"eventrelay/server/translate"
	"eventrelay/server/webhook"
)

const shopSecret = "s3cr3t-of-the-shop"

// receiver serves webhooks for the rig's journal, as the server does, and returns the address to post to.
func (r *rig) receiver() string {
	r.t.Helper()
	sources, err := source.NewSet([]*eventrelayv1.Source{
		{Name: "sources/shop", Provider: eventrelayv1.Provider_PROVIDER_META, AppSecrets: []string{shopSecret}, VerifyToken: "t0ken"},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewServer(webhook.New(webhook.Options{
		Sources: sources, Inbox: r.journal, Metrics: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	}))
	r.t.Cleanup(server.Close)
	return server.URL + "/webhooks/shop"
}

// answer posts a signed body and returns how long the 200 took.
func answer(t *testing.T, client *http.Client, address, body string) time.Duration {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(shopSecret))
	mac.Write([]byte(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	begun := time.Now()
	got, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	got.Body.Close()
	took := time.Since(begun)
	if got.StatusCode != http.StatusOK {
		t.Fatalf("%s is answered %s", body, got.Status)
	}
	return took
}

// refusingLog refuses every step until it is mended.
type refusingLog struct {
	*eventlog.Log
	mended chan struct{}
}

func (l *refusingLog) Append(ctx context.Context, records []eventlog.Record) (eventlog.Appended, error) {
	select {
	case <-l.mended:
		return l.Log.Append(ctx, records)
	default:
		return eventlog.Appended{}, errors.New("the disk is on fire")
	}
}

// Two relays are posted to in turn, one of them free and one held up behind its journal, so that what else the machine does hits the answers of both.
func TestWhatHoldsUpTheWayIntoTheLogChangesNoAnswer(t *testing.T) {
	const posts = 150
	for name, hold := range map[string]func(r *rig, goesOn chan struct{}){
		"a translator that is stuck": func(r *rig, goesOn chan struct{}) {
			r.translate = func(n translate.Notification) []translate.Event { <-goesOn; return words(n) }
		},
		"a translator that is slow": func(r *rig, goesOn chan struct{}) {
			r.translate = func(n translate.Notification) []translate.Event {
				select {
				case <-goesOn:
				case <-time.After(time.Second): // what it takes, for every notification
				}
				return words(n)
			}
		},
		"a log that stalls": func(r *rig, goesOn chan struct{}) {
			stalled := newStalledLog(r.log)
			stalled.goesOn, r.to = goesOn, stalled
		},
		"a log that fails": func(r *rig, goesOn chan struct{}) { r.to = &refusingLog{r.log, goesOn} },
	} {
		t.Run(name, func(t *testing.T) {
			goesOn := make(chan struct{})
			release := sync.OnceFunc(func() { close(goesOn) })
			free, held := newRig(t, eventlog.Options{}), newRig(t, eventlog.Options{})
			t.Cleanup(release) // before the rigs halt, whatever happens
			hold(held, goesOn)
			free.start()
			held.start()
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			toFree, toHeld := free.receiver(), held.receiver()
			var fast, slow []time.Duration
			var want []string
			for n := range posts {
				body := fmt.Sprintf(`"%d"`, n)
				want = append(want, body)
				fast = append(fast, answer(t, client, toFree, body))
				slow = append(slow, answer(t, client, toHeld, body))
			}
			if lag := held.ingest.Lag(); lag < posts/2 {
				t.Errorf("%d of %d notifications wait: nothing was held up", lag, posts)
			}
			// An answer that waited would take as long as what it waits for. Twice and a little is the noise of a machine with other work.
			if f, s := middle(fast), middle(slow); s > 2*f+10*time.Millisecond {
				t.Errorf("answers take %s, of a relay that is not held up %s", s, f)
			}
			release()
			if got := held.drained(); !slices.Equal(got, want) {
				t.Errorf("afterwards the log has %v, want %v", got, want)
			}
		})
	}
}

// middle is the median.
func middle(of []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(of))[len(of)/2]
}
