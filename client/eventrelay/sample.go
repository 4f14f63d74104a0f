package main

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sampleFiles holds a notification per event type, named for it. Strings of the form {{word}} are placeholders.
//
//go:embed samples/*.json
var sampleFiles embed.FS

// The providers that sign, in the words of --provider.
const (
	providerMeta      = "meta"
	providerDialog360 = "dialog360-partner"
	// providerDialog360Channel signs nothing: it shows a header.
	providerDialog360Channel = "dialog360-channel"
)

// The placeholder for the text that a user may give; the others are in render.
const textPlaceholder = `"{{text}}"`

// sample is a notification that makes one event of a type.
type sample struct {
	eventType string
	body      []byte
}

// provider tells who sends such a notification.
func (s sample) provider() string {
	if strings.HasPrefix(s.eventType, "dialog360.") {
		return providerDialog360
	}
	return providerMeta
}

// samples gives all there are, by event type.
func samples() ([]sample, error) {
	names, err := fs.Glob(sampleFiles, "samples/*.json")
	if err != nil {
		return nil, fmt.Errorf("list samples: %w", err)
	}
	var all []sample
	for _, name := range names {
		body, err := sampleFiles.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read sample: %w", err)
		}
		all = append(all, sample{eventType: strings.TrimSuffix(path.Base(name), ".json"), body: body})
	}
	return all, nil
}

// goesFirst is what the type begins with that its last word alone stands for, whatever else ends so.
const goesFirst = "meta.whatsapp_business_account.messages."

// findSample gives the sample of an event type, which may be shortened to its last words as long as only one type ends so. Where more do,
// what WhatsApp's field `messages` holds goes first: `message` is a WhatsApp message, not one of a page.
func findSample(eventType string) (sample, error) {
	all, err := samples()
	if err != nil {
		return sample{}, err
	}
	found := slices.DeleteFunc(all, func(s sample) bool {
		return s.eventType != eventType && !strings.HasSuffix(s.eventType, "."+eventType)
	})
	if first := slices.IndexFunc(found, func(s sample) bool { return s.eventType == goesFirst+eventType }); first >= 0 {
		return found[first], nil
	}
	if len(found) > 1 {
		return sample{}, usagef("event type %q may be any of %d, such as %s and %s: write more of it, `eventrelay trigger --list` shows those there are",
			eventType, len(found), found[0].eventType, found[1].eventType)
	}
	if len(found) == 0 {
		return sample{}, usagef("no sample for event type %q: `eventrelay trigger --list` shows those there are, --file FILE posts one of your own", eventType)
	}
	return found[0], nil
}

// render fills in the placeholders, so that every notification is a new one: its ids are fresh and its times are now.
func (s sample) render(text string, now time.Time) ([]byte, error) {
	digits, err := randomDigits()
	if err != nil {
		return nil, err
	}
	quotedText, err := json.Marshal(text)
	if err != nil {
		return nil, fmt.Errorf("text as JSON: %w", err)
	}
	seconds := strconv.FormatInt(now.Unix(), 10)
	// The placeholders are whole strings, so that the files are JSON as they lie there; a number takes its quotes away.
	filled := strings.NewReplacer(
		textPlaceholder, string(quotedText),
		`"{{seconds}}"`, strconv.Quote(seconds),
		`"{{seconds:number}}"`, seconds,
		`"{{rfc3339}}"`, strconv.Quote(now.UTC().Format(time.RFC3339)),
		`"{{wamid}}"`, strconv.Quote("wamid."+rand.Text()),
		`"{{opaque}}"`, strconv.Quote(rand.Text()),
		`"{{detail}}"`, strconv.Quote("Sample "+rand.Text()),
		`"{{digits}}"`, strconv.Quote(digits),
	).Replace(string(s.body))
	var body bytes.Buffer
	if err := json.Compact(&body, []byte(filled)); err != nil {
		return nil, fmt.Errorf("sample %s: %w", s.eventType, err)
	}
	return body.Bytes(), nil
}

// takesText reports whether the sample has a text to set.
func (s sample) takesText() bool { return bytes.Contains(s.body, []byte(textPlaceholder)) }

// randomDigits gives an id as Meta's are: fifteen digits, the first no zero.
func randomDigits() (string, error) {
	const lowest = 100_000_000_000_000
	n, err := rand.Int(rand.Reader, big.NewInt(9*lowest))
	if err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return strconv.FormatInt(n.Int64()+lowest, 10), nil
}
