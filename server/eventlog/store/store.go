// Package store is the embedded JetStream server of an event log, and its folder: fit for a start after any stop, and on disk where that is said.
//
// The server syncs nothing of what it writes, believes its own summaries after a crash, and deletes a stream that it cannot recover. The log has promised more, and this room
// makes up for it: what the server finds at a start is what was acknowledged, or the log is told otherwise.
package store

import "path/filepath"

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

// Consumer is where the server keeps a consumer.
func (f Folder) Consumer(c Consumer) string { return filepath.Join(f.Stream(c.Stream), "obs", c.Name) }
