package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft-wal/types"
)

const (
	metaFile = "meta"
	metaCopy = "meta.copy"
)

// meta keeps the journal's identity and the engine's list of segments. It takes the
// place of the engine's own store, a bbolt file: that one is mapped into
// memory, without a checksum, and a damaged page of it can bring down the process.
//
// The file is a line with the CRC-32C of what follows, and then JSON. It is
// replaced by rename, and there is a copy against damage of the first.
type meta struct {
	dir string

	mu   sync.Mutex // guards what follows
	doc  metaDoc
	fail func(error) // told of a commit that failed
}

type metaDoc struct {
	Version    int    `json:"version"`
	Generation uint64 `json:"generation"`
	ID         string `json:"id"`
	// Key is what the checksums of this journal's records start from.
	Key   uint32                `json:"key"`
	State types.PersistentState `json:"state"`
}

// openMeta reads the meta of the journal in dir, or makes one where there is nothing
// else of a journal either.
func openMeta(dir string, log *slog.Logger) (*meta, error) {
	m := &meta{dir: dir, fail: func(error) {}}
	doc, err := readMeta(filepath.Join(dir, metaFile))
	second, copyErr := readMeta(filepath.Join(dir, metaCopy))
	switch {
	case err == nil:
		m.doc = doc
		if copyErr == nil && second.Generation == doc.Generation {
			return m, nil
		}
		return m, m.save()
	case copyErr == nil:
		log.Warn("meta of the journal is damaged or missing, its copy is used", "dir", dir, "error", err)
		m.doc = second
		if err := m.checkSegments(); err != nil {
			return nil, err
		}
		return m, m.save()
	case !errors.Is(err, fs.ErrNotExist) || !errors.Is(copyErr, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: neither %s nor %s can be read: restore one of them, or move the folder away to start with an empty journal: %w",
			ErrDamaged, filepath.Join(dir, metaFile), metaCopy, errors.Join(err, copyErr))
	}
	names, err := segmentNames(dir)
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("%w: %s is missing, though there is the segment %s: restore it, or move the folder away to start with an empty journal",
			ErrDamaged, filepath.Join(dir, metaFile), names[0])
	}
	m.doc = metaDoc{Version: 1}
	return m, m.renew()
}

func readMeta(path string) (metaDoc, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return metaDoc{}, err
	}
	line, body, _ := bytes.Cut(b, []byte("\n"))
	if string(line) != metaSum(body) {
		return metaDoc{}, fmt.Errorf("%s does not match its checksum", path)
	}
	var doc metaDoc
	if err := json.Unmarshal(body, &doc); err != nil {
		return metaDoc{}, fmt.Errorf("parse %s: %w", path, err)
	}
	if doc.Version != 1 {
		return metaDoc{}, fmt.Errorf("%s has version %d, this program knows version 1", path, doc.Version)
	}
	return doc, nil
}

func metaSum(body []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) }

// checkSegments refuses a meta that is older than the segments: the engine would
// delete those that it does not list.
func (m *meta) checkSegments() error {
	names, err := segmentNames(m.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, id, err := parseSegmentName(name)
		if err != nil {
			return err
		}
		if id >= m.doc.State.NextSegmentID {
			return fmt.Errorf("%w: segment %s is newer than %s: restore the meta that belongs to it, or move the folder away to start with an empty journal",
				ErrDamaged, filepath.Join(m.dir, name), metaFile)
		}
	}
	return nil
}

// save writes both files. The first is in place before the second is touched.
// mu must be held once the meta is shared.
func (m *meta) save() error {
	m.doc.Generation++
	body, err := json.MarshalIndent(m.doc, "", " ")
	if err != nil {
		return err
	}
	b := append([]byte(metaSum(body)+"\n"), body...)
	for _, name := range []string{metaFile, metaCopy} {
		if err := replaceFile(m.dir, name, b); err != nil {
			return fmt.Errorf("write %s of the journal: %w", name, err)
		}
	}
	return nil
}

func replaceFile(dir, name string, b []byte) error {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// renew gives the journal a new identity. The key of an existing one stays.
func (m *meta) renew() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.doc.ID == "" {
		var key [4]byte
		rand.Read(key[:])
		m.doc.Key = binary.LittleEndian.Uint32(key[:])
	}
	m.doc.ID = strings.ToLower(rand.Text())
	return m.save()
}

func (m *meta) id() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.doc.ID
}

func (m *meta) sum() keyedSum {
	m.mu.Lock()
	defer m.mu.Unlock()
	return keyedSum(m.doc.Key)
}

// onError has fail told of every commit that fails from now on.
func (m *meta) onError(fail func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// segments is the list as last committed, in the order of their records.
func (m *meta) segments() []types.SegmentInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.doc.State.Segments)
}

// first is the lowest index that the segments hold, or will hold when they are empty.
func (m *meta) first() uint64 {
	if s := m.segments(); len(s) > 0 {
		return s[0].MinIndex
	}
	return 1
}

// segmentOf finds the segment of a record.
func (m *meta) segmentOf(index uint64) (types.SegmentInfo, bool) {
	segs := m.segments()
	for _, seg := range slices.Backward(segs) {
		if seg.BaseIndex <= index {
			return seg, true
		}
	}
	return types.SegmentInfo{}, false
}

// takeIDs sets n segment ids aside, durably, so that a file left behind by a crash is
// known to be an old one.
func (m *meta) takeIDs(n uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.doc.State.NextSegmentID
	m.doc.State.NextSegmentID += n
	return id, m.save()
}

// replace commits a repaired list of segments.
func (m *meta) replace(segs []types.SegmentInfo) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doc.State.Segments = segs
	return m.save()
}

// Load implements types.MetaStore.
func (m *meta) Load(string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return types.PersistentState{
		NextSegmentID: m.doc.State.NextSegmentID,
		Segments:      slices.Clone(m.doc.State.Segments),
	}, nil
}

// CommitState implements types.MetaStore.
func (m *meta) CommitState(s types.PersistentState) error {
	for i := range s.Segments {
		// The engine enters its own codec for each new segment, whichever it was
		// given, and would then refuse the segment when it is opened again.
		s.Segments[i].Codec = codecID
	}
	m.mu.Lock()
	m.doc.State = s
	err := m.save()
	fail := m.fail
	m.mu.Unlock()
	if err != nil {
		fail(err)
	}
	return err
}

var errNoStable = errors.New("the journal keeps no keys")

// GetStable implements types.MetaStore, of which only the segments are used.
func (m *meta) GetStable([]byte) ([]byte, error) { return nil, errNoStable }

// SetStable implements types.MetaStore, of which only the segments are used.
func (m *meta) SetStable(_, _ []byte) error { return errNoStable }

// Close implements types.MetaStore; nothing is kept open.
func (m *meta) Close() error { return nil }
