// Package store is the embedded JetStream server of an event log, and its folder: fit for a start after any stop, and on disk where that is said.
//
// The server syncs nothing of what it writes, believes its own summaries after a crash, and deletes a stream that it cannot recover. The log has promised more, and this room
// makes up for it: what the server finds at a start is what was acknowledged, or the log is told otherwise.
package store

import (
	"fmt"
	"path/filepath"
	"strings"
)

// A Folder is where an embedded server keeps its streams, and where lies beside them what is known of them.
type Folder string

// streams is what belongs to the server.
func (f Folder) streams() string { return filepath.Join(string(f), "jetstream") }

// Stream is where the server keeps a stream.
func (f Folder) Stream(name string) string { return filepath.Join(f.streams(), "$G", "streams", name) }

// Messages is where the server keeps the blocks of a stream.
func (f Folder) Messages(stream string) string { return filepath.Join(f.Stream(stream), "msgs") }

// A Consumer of a stream, by the names of both.
type Consumer struct{ Stream, Name string }

// MarshalText writes stream/name.
func (c Consumer) MarshalText() ([]byte, error) { return []byte(c.Stream + "/" + c.Name), nil }

// UnmarshalText reads what MarshalText writes. Both end up in the name of a file.
func (c *Consumer) UnmarshalText(text []byte) error {
	stream, name, _ := strings.Cut(string(text), "/")
	if !plainWord(stream) || !plainWord(name) {
		return fmt.Errorf("%q is no consumer of a stream", text)
	}
	*c = Consumer{stream, name}
	return nil
}

// plainWord tells whether a word is letters, digits, - and _.
func plainWord(word string) bool {
	return word != "" && strings.IndexFunc(word, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

// Consumer is where the server keeps a consumer.
func (f Folder) Consumer(c Consumer) string { return filepath.Join(f.Stream(c.Stream), "obs", c.Name) }
