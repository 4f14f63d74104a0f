package drift

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/encoding/protojson"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// state is what the file holds: what was counted of which log up to where. The parts are written in one go, so they always belong together.
type state struct {
	Log       string            `json:"log"`
	Sequence  uint64            `json:"sequence"`
	Forgotten uint64            `json:"forgotten"`
	Entries   []json.RawMessage `json:"entries"`
}

// save replaces the file. It is not synced: what a power cut takes is counted again.
func (d *Drift) save() error {
	entries, counted := d.List()
	s := state{Log: d.logID(), Sequence: counted.Sequence, Forgotten: counted.Forgotten}
	for _, entry := range entries {
		text, err := protojson.Marshal(entry)
		if err != nil {
			return fmt.Errorf("encode an entry: %w", err)
		}
		s.Entries = append(s.Entries, text)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the list: %w", err)
	}
	if err := renameio.WriteFile(d.path, data, 0o600); err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	return nil
}

// load takes over what the file holds, if it is of this log. On an error nothing was taken over.
func (d *Drift) load() error {
	data, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("decode the list: %w", err)
	}
	if s.Log != d.logID() {
		return nil
	}
	entries := make(map[key]*eventrelayv1.Drift, len(s.Entries))
	for _, text := range s.Entries {
		entry := &eventrelayv1.Drift{}
		if err := protojson.Unmarshal(text, entry); err != nil {
			return fmt.Errorf("decode an entry: %w", err)
		}
		entries[key{entry.GetKind(), entry.GetType(), entry.GetPath(), entry.GetWord()}] = entry
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries, d.order, d.counted = entries, nil, Counted{Sequence: s.Sequence, Forgotten: s.Forgotten}
	return nil
}
