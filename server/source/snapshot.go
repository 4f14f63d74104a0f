package source

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"eventrelay/server/seal"
)

// errSnapshotDamaged says that a snapshot is not what was written.
var errSnapshotDamaged = errors.New("the snapshot of the sources is damaged")

const (
	// snapshotMagic is how a snapshot begins. The sum of the rest follows, which tells damage from a missing key, and then the rest: sealed JSON.
	snapshotMagic   = "eventrelay sources 1\n"
	snapshotPurpose = "eventrelay snapshot of sources"
)

// kept is a record as the bucket has it: sealed, under its key, with its revision.
type kept struct {
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
	Sealed   []byte `json:"sealed"`
}

// snapshot is the file that holds what the bucket held last. It is used by one goroutine at a time.
type snapshot struct {
	path string
	keys *seal.Keys
	// sum is of the content of the file, as far as known.
	sum [sha256.Size]byte
}

// load returns what the file holds. The error wraps fs.ErrNotExist, errSnapshotDamaged, or seal.ErrWrongKey.
func (s *snapshot) load() ([]kept, error) {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("read the snapshot of the sources: %w", err)
	}
	rest, ok := bytes.CutPrefix(data, []byte(snapshotMagic))
	if !ok || len(rest) < sha256.Size || sha256.Sum256(rest[sha256.Size:]) != [sha256.Size]byte(rest[:sha256.Size]) {
		return nil, fmt.Errorf("%s: %w", s.path, errSnapshotDamaged)
	}
	sealed := rest[sha256.Size:]
	content, err := s.keys.Open(sealed, snapshotPurpose)
	if errors.Is(err, seal.ErrDamaged) {
		err = errSnapshotDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	var list []kept
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, errSnapshotDamaged)
	}
	if s.keys.Current(sealed) {
		s.sum = sha256.Sum256(content)
	}
	return list, nil
}

// save makes the list the content of the file, durably: when it returns nil it survives a power cut, and until then the former content does. A list that the
// file has already is not written again.
func (s *snapshot) save(list []kept) error {
	content, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("save the snapshot of the sources: %w", err)
	}
	sum := sha256.Sum256(content)
	if sum == s.sum {
		return nil
	}
	sealed, err := s.keys.Seal(content, snapshotPurpose)
	if err != nil {
		return fmt.Errorf("save the snapshot of the sources: %w", err)
	}
	check := sha256.Sum256(sealed)
	if err := replaceFile(s.path, bytes.Join([][]byte{[]byte(snapshotMagic), check[:], sealed}, nil)); err != nil {
		return fmt.Errorf("save the snapshot of the sources: %w", err)
	}
	s.sum = sum
	return nil
}

// replaceFile replaces the content of a file as a whole, and syncs it and the folder that names it.
func replaceFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// One name, so that a file that a crash left over is replaced and they do not pile up.
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
