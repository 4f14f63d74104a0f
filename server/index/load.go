package index

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"eventrelay/server/eventlog"
)

const (
	extension = ".ids"
	// keyFile holds the key of the fingerprints: 16 random bytes and a checksum. Without it the other files mean nothing.
	keyFile = "key"
	// readChunk is how many entries of the log are taken in at once.
	readChunk = 4096
)

// openKey reads the key, or makes one.
func (x *Index) openKey() error {
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(x.dir, keyFile)
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(b) != 20 || crc32.Checksum(b[:16], checksums) != binary.LittleEndian.Uint32(b[16:]) {
		if err == nil {
			x.logger.Warn("the key of the index is damaged; its files are dropped and the ids are read from the log again", "path", path)
		}
		b = make([]byte, 16, 20)
		_, _ = rand.Read(b) // never fails
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, checksums))
		if err := renameio.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	x.key = [2]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
	return nil
}

// catchUp reads from the log what the index does not know yet; at first, and when the log has lost its end, everything.
func (x *Index) catchUp(ctx context.Context) error {
	select {
	case x.reading <- struct{}{}:
		defer func() { <-x.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	x.mu.Lock()
	ready, position := x.ready, x.position
	x.mu.Unlock()
	st, err := x.log.State(ctx)
	if err != nil {
		return fmt.Errorf("catch up with the log: %w", err)
	}
	switch {
	case !ready:
		return x.load(ctx, st)
	case st.Last < position:
		x.logger.Warn("the log ends before what the index knows of it; what is behind its end is forgotten", "log_ends_at", st.Last, "known", position)
		return x.load(ctx, st)
	case st.Last > position:
		if err := x.read(ctx, position+1, st.Last, x.advance); err != nil {
			return fmt.Errorf("catch up with the log: %w", err)
		}
	}
	return nil
}

// read hands over what the log holds from one sequence through another, in blocks that leave nothing out.
func (x *Index) read(ctx context.Context, from, through uint64, take func(block)) error {
	b := block{from: from}
	for e, err := range x.log.ReadHeaders(ctx, from) {
		if err != nil {
			return err
		}
		if e.Sequence > through {
			break
		}
		if e.Sequence-b.from > math.MaxUint32 { // farther than a block can tell
			b.through = e.Sequence - 1
			take(b)
			b = block{from: e.Sequence}
		}
		if e.ID != "" {
			b.entries = append(b.entries, entry{x.mark(e.ID), e.Sequence})
			b.meet(e.Time)
		}
		if b.through = e.Sequence; len(b.entries) == readChunk {
			take(b)
			b = block{from: e.Sequence + 1}
		}
	}
	if b.from <= through {
		b.through = through
		take(b)
	}
	return nil
}

// advance takes a block in that goes on where the index stands, or did when it began to be read.
func (x *Index) advance(b block) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.through <= x.position {
		return // a step of this process was faster
	}
	if b.from <= x.position {
		b.from = x.position + 1
		b.entries = slices.DeleteFunc(b.entries, func(e entry) bool { return e.sequence <= x.position })
	}
	for _, e := range b.entries {
		delete(x.claims, e.mark)
	}
	x.position = b.through
	x.add(b)
	x.settleAwaited()
	x.stir()
}

// load builds the index anew, from the files and, for what they lack, from the log. reading is held.
func (x *Index) load(ctx context.Context, st eventlog.State) error {
	began := time.Now()
	if err := x.save(true); err != nil {
		x.logger.Warn("the index cannot write its files", "error", err)
	}
	x.mu.Lock()
	x.ready, x.generations, x.unsaved, x.aged, x.position = false, nil, nil, nil, 0
	x.mu.Unlock()
	covered, err := x.loadFiles(st.Last)
	if err != nil {
		return fmt.Errorf("read the files of the index: %w", err)
	}
	first, err := x.horizonBegin(ctx, st)
	if err != nil {
		return err
	}
	for _, gap := range covered.gaps(max(first, st.First), st.Last) {
		if err := x.read(ctx, gap.from, gap.through, x.fill); err != nil {
			return fmt.Errorf("read the ids of the log: %w", err)
		}
	}
	x.mu.Lock()
	x.ready, x.position = true, st.Last
	x.mu.Unlock()
	events, _, generations := x.usage()
	x.logger.Info("index is ready", "events", events, "generations", generations, "after", time.Since(began).Round(time.Millisecond))
	return nil
}

// fill takes a block in that the files lack.
func (x *Index) fill(b block) {
	x.mu.Lock()
	x.add(b)
	waiting := 0
	for _, u := range x.unsaved {
		waiting += len(u.entries)
	}
	x.mu.Unlock()
	if waiting >= maxUnsaved {
		x.saveOrWarn()
	}
}

// horizonBegin returns the first sequence whose id must be known. The horizon counts back from the newest event: what waits in the journal was received after it.
func (x *Index) horizonBegin(ctx context.Context, st eventlog.State) (uint64, error) {
	if st.Events == 0 {
		return st.Last + 1, nil
	}
	t := time.Now()
	e, err := x.log.Get(ctx, st.Last)
	switch {
	case err == nil && !e.Time.IsZero() && e.Time.Before(t):
		t = e.Time
	case err != nil && !errors.Is(err, eventlog.ErrNotFound):
		return 0, fmt.Errorf("find the newest event of the log: %w", err)
	}
	first, err := x.log.SequenceAt(ctx, t.Add(-x.horizon))
	if err != nil {
		return 0, fmt.Errorf("find the begin of the horizon in the log: %w", err)
	}
	return first, nil
}

// loadFiles reads the generations, cuts off what cannot be believed, and returns which sequences they cover.
func (x *Index) loadFiles(last uint64) (covered coverage, err error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	names, err := os.ReadDir(x.dir) // sorted
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		digits, ok := strings.CutSuffix(name.Name(), extension)
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue
		}
		g, err := x.loadFile(filepath.Join(x.dir, name.Name()), last, &covered)
		if err != nil {
			return nil, err
		}
		x.mu.Lock()
		x.number = max(x.number, number)
		if g != nil {
			if n := len(x.generations); n > 0 {
				x.generations[n-1].seal()
			}
			x.generations = append(x.generations, g)
		}
		x.mu.Unlock()
	}
	return covered, syncDir(x.dir)
}

// loadFile reads one generation, nil if there is nothing of it. writing is held.
func (x *Index) loadFile(path string, last uint64, covered *coverage) (*generation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	g := &generation{file: file{path: path}}
	var entries []entry
	beyond := int64(-1)
	g.size = headerLen
	good, err := readBlocks(f, x.mark(x.log.ID()), func(b block, end int64) bool {
		if b.through > last {
			beyond = g.size
			return false
		}
		g.size = end
		if len(b.entries) > 0 && (g.opened.IsZero() || b.newest.Before(g.opened)) {
			g.opened = b.newest
		}
		g.meet(b.newest)
		entries = append(entries, b.entries...)
		*covered = covered.add(b.from, b.through)
		return true
	})
	switch {
	case errors.Is(err, errForeign):
		x.logger.Info("dropped ids of another log", "path", path)
		return nil, os.Remove(path)
	case err != nil && !errors.Is(err, errDamaged):
		return nil, err
	case beyond >= 0:
		x.logger.Warn("the index was ahead of the log, which has lost its end", "path", path, "log_ends_at", last)
		err = cut(path, beyond)
	case err != nil:
		x.logger.Info("the index was not written to its end; what is missing is read from the log", "path", path, "good_bytes", good)
		err = cut(path, good)
	}
	if err != nil || g.size == headerLen {
		if err == nil && beyond < 0 && good == headerLen {
			err = os.Remove(path) // nothing but a header
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	g.events = len(entries)
	for _, r := range newRuns(entries) {
		g.runs = g.runs.push(r)
	}
	return g, nil
}

// meet notes when an event was received.
func (g *generation) meet(received time.Time) {
	if received.After(g.newest) {
		g.newest = received
	}
}
