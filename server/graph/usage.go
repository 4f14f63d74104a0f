package graph

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"eventrelay/server/upstream"
)

const (
	// unknownPause is how long there are no calls where Meta says that a limit is reached and not until when. Its figures are over a rolling hour,
	// so some of it has passed by then; the next call brings new ones.
	unknownPause = 5 * time.Minute
	// maxPause bounds what a header can ask for.
	maxPause = 24 * time.Hour
	// maxScopes and maxBusinesses bound what is remembered. To forget costs a call that Meta refuses.
	maxScopes     = 1000
	maxBusinesses = 32
)

// An area is a group of calls with limits of their own.
type area string

const (
	areaWhatsApp  area = "whatsapp"
	areaPage      area = "page"
	areaInstagram area = "instagram"
	areaApp       area = "app"
)

// scopes are what a call may be refused for: the app, the page, and the businesses behind a token.
type scopes struct {
	app string
	// page is empty for calls that are not about a page.
	page string
	// asker is who makes calls of an area. Meta does not say in advance for which business they count; the answers do.
	asker string
}

func scopesOf(cred Credentials, token upstream.Secret, call call) scopes {
	sum := sha256.Sum256([]byte(token.Reveal()))
	asker := fmt.Sprintf("token %x", sum[:8])
	s := scopes{app: "app " + cred.AppID, asker: string(call.area) + " by " + asker}
	if cred.AppID == "" {
		s.app = "app of " + asker
	}
	if call.area == areaPage {
		s.page = "page " + call.object
	}
	return s
}

// usage remembers which limits are reached. Its methods may be called at once.
type usage struct {
	// mu guards the fields below it.
	mu sync.Mutex
	// until is when there may be calls again, by scope. It holds limits that are or were reached.
	until map[string]time.Time
	// businesses are the scopes that the answers to an asker named last.
	businesses map[string][]string
}

func newUsage() *usage {
	return &usage{until: map[string]time.Time{}, businesses: map[string][]string{}}
}

// check returns an error, and when to come back, if Meta would refuse the call.
func (u *usage) check(s scopes) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	var latest time.Time
	var reached string
	for _, scope := range append([]string{s.app, s.page}, u.businesses[s.asker]...) {
		if until, ok := u.until[scope]; ok && until.After(now) && until.After(latest) {
			latest, reached = until, scope
		}
	}
	if reached == "" {
		return nil
	}
	// A scope that is made of the token's sum is not for people.
	what, _, _ := strings.Cut(reached, " of token")
	return &Error{
		Kind: upstream.ResourceExhausted, RetryAfter: latest.Sub(now),
		Message: fmt.Sprintf("not called, for Meta's limit for this %s is reached; come back at %s", what, latest.UTC().Format(time.RFC3339)),
	}
}

// note takes in the usage headers of an answer. It returns how long there will be no calls as this one was, and the headers that cannot be read.
func (u *usage) note(s scopes, header http.Header) (pause time.Duration, unread []string) {
	readings, unread := readUsage(header)
	if len(readings) == 0 {
		return 0, unread
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	var businesses []string
	for _, r := range readings {
		var scope string
		switch r.kind {
		case ofApp:
			scope = s.app
		case ofPage:
			scope = s.page
		default:
			scope = "business " + r.business + " (" + r.useCase + ")"
			businesses = append(businesses, scope)
		}
		// While a limit is waited for, a figure below it can only come from a call that began earlier.
		if scope == "" || !r.reached() {
			continue
		}
		makeRoom(u.until, func(until time.Time) bool { return !until.After(now) })
		u.until[scope] = now.Add(r.pause())
		pause = max(pause, r.pause())
	}
	if len(businesses) > 0 {
		makeRoom(u.businesses, func([]string) bool { return false })
		u.businesses[s.asker] = businesses
	}
	return pause, unread
}

// makeRoom keeps a map below maxScopes: first the stale go, then any one.
func makeRoom[V any](m map[string]V, stale func(V) bool) {
	if len(m) < maxScopes {
		return
	}
	for key, value := range m {
		if stale(value) {
			delete(m, key)
		}
	}
	for key := range m {
		if len(m) < maxScopes {
			return
		}
		delete(m, key)
	}
}

// What a reading is of.
const (
	ofApp = iota
	ofPage
	ofBusiness
)

// A reading is one figure of a usage header.
type reading struct {
	kind              int
	business, useCase string
	// percent is the highest of the figures, regain how many minutes there are still no calls.
	percent, regain float64
}

func (r reading) reached() bool { return r.percent >= 100 || r.regain > 0 }

func (r reading) pause() time.Duration {
	if r.regain <= 0 {
		return unknownPause
	}
	return time.Duration(min(r.regain, maxPause.Minutes()) * float64(time.Minute))
}

// readUsage reads the usage headers. A header that cannot be read is named and left out: it is no reason to fail a call.
func readUsage(header http.Header) (readings []reading, unread []string) {
	type figures struct {
		Type     string  `json:"type"`
		Calls    float64 `json:"call_count"`
		CPUTime  float64 `json:"total_cputime"`
		Time     float64 `json:"total_time"`
		Estimate float64 `json:"estimated_time_to_regain_access"`
	}
	read := func(kind int, business string, f figures) reading {
		return reading{kind: kind, business: business, useCase: f.Type, percent: max(f.Calls, f.CPUTime, f.Time), regain: f.Estimate}
	}
	for kind, name := range []string{ofApp: "X-App-Usage", ofPage: "X-Page-Usage"} {
		text := header.Get(name)
		var f figures
		switch {
		case text == "":
		case json.Unmarshal([]byte(text), &f) != nil:
			unread = append(unread, name)
		default:
			readings = append(readings, read(kind, "", f))
		}
	}
	const ofBusinesses = "X-Business-Use-Case-Usage"
	text := header.Get(ofBusinesses)
	if text == "" {
		return readings, unread
	}
	var all map[string][]figures
	if json.Unmarshal([]byte(text), &all) != nil {
		return readings, append(unread, ofBusinesses)
	}
	var found []reading
	for business, list := range all {
		for _, f := range list {
			found = append(found, read(ofBusiness, business, f))
		}
	}
	// Of more than can be remembered, those that are worst off.
	slices.SortFunc(found, func(a, b reading) int {
		if a.reached() != b.reached() {
			if a.reached() {
				return -1
			}
			return 1
		}
		return strings.Compare(a.business+a.useCase, b.business+b.useCase)
	})
	return append(readings, found[:min(len(found), maxBusinesses)]...), unread
}
