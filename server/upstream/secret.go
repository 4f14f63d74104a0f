package upstream

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

const (
	hidden = "[secret]"
	// window is the length from which on a part of a secret counts as the secret: providers quote tokens cut short.
	window = 8
)

// A Secret is a text that no way of printing shows: not fmt, whatever the verb and however deep the value that holds it, not
// slog, not JSON. The zero Secret is empty.
type Secret struct {
	// A closure, for reflection, by which fmt goes through unexported fields past Format, does not see into one.
	reveal func() string
}

// NewSecret returns the text as a Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return text }}
}

// Reveal returns the text, to be sent and not to be kept.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Empty reports whether there is no text.
func (s Secret) Empty() bool { return s.reveal == nil }

// String tells whether there is a secret, not which.
func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return hidden
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format writes String whatever the verb and flags.
func (s Secret) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(s.String())) }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, so that JSON tells as much.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Scrub returns the text without the secrets, nor any part of one that has eight bytes or more, as they are, escaped for a URL or for JSON.
// What is left is valid UTF-8.
func Scrub(text string, secrets ...Secret) string {
	parts := make(map[string]struct{})
	var short []string
	for _, secret := range secrets {
		for _, form := range forms(secret.Reveal()) {
			if len(form) < window {
				short = append(short, form)
			}
			for i := 0; i+window <= len(form); i++ {
				parts[form[i:i+window]] = struct{}{}
			}
		}
	}
	// hides[i] says that byte i belongs to a secret.
	hides := make([]bool, len(text))
	for i := 0; i+window <= len(text); i++ {
		if _, found := parts[text[i:i+window]]; found {
			for j := i; j < i+window; j++ {
				hides[j] = true
			}
		}
	}
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !hides[i]:
			out.WriteByte(text[i])
		case i == 0 || !hides[i-1]:
			out.WriteString(hidden)
		}
	}
	clean := out.String()
	for _, form := range short {
		clean = strings.ReplaceAll(clean, form, hidden)
	}
	return strings.ToValidUTF8(clean, "?")
}

// forms returns the ways in which a secret may be written, none for the empty one.
func forms(text string) []string {
	if text == "" {
		return nil
	}
	list := []string{text, url.QueryEscape(text), url.PathEscape(text)}
	if quoted, err := json.Marshal(text); err == nil {
		list = append(list, strings.Trim(string(quoted), `"`))
	}
	slices.Sort(list)
	return slices.Compact(list)
}
