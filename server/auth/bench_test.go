package auth

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// What a guard adds to every call, and to every message of a stream.
func BenchmarkAllow(b *testing.B) {
	var content strings.Builder
	content.WriteString("tokens:\n")
	for n := range 1000 {
		content.WriteString(entry(fmt.Sprintf("caller-%d", n), "reader", fmt.Sprintf("ert_%052d", n)))
	}
	parsed, err := parseTokens("file", []byte(content.String()))
	if err != nil {
		b.Fatal(err)
	}
	tokens := &Tokens{}
	tokens.byDigest.Store(&parsed)
	guard := NewGuard(tokens, nil, slog.New(slog.DiscardHandler))
	shown := []string{fmt.Sprintf("Bearer ert_%052d", 500)}
	for b.Loop() {
		if err := guard.Allow(b.Context(), "a call", Reader, shown); err != nil {
			b.Fatal(err)
		}
	}
}
