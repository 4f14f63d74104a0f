package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// standingFile holds where consumers stand, as it was when receipts were let go of.
const standingFile = "standing"

// standing keeps, on disk, copies of the files in which the embedded server writes down where consumers stand. The server replaces such a file without a sync, so that after a power cut
// it may be empty, or the one before. What was settled before the copy has no receipt any more; what came after has.
type standing struct {
	dir Folder
	// nil is not read yet.
	copies map[Consumer]standingCopy
}

// standingCopy is of a consumer that was made at a time: another one may have its name later.
type standingCopy struct {
	Created time.Time `json:"created"`
	File    []byte    `json:"file"`
}

func (s *standing) path() string { return filepath.Join(string(s.dir), standingFile) }

// keep copies where consumers stand now. It returns when that is durable.
func (s *standing) keep(consumers []Consumer) error {
	if err := s.read(); err != nil {
		return err
	}
	for c := range s.copies {
		if _, err := s.dir.created(c); errors.Is(err, fs.ErrNotExist) {
			delete(s.copies, c) // the consumer was removed
		}
	}
	for _, c := range consumers {
		created, err := s.dir.created(c)
		if err != nil {
			continue // it was removed, or it is being changed and has its copy the next time
		}
		file, err := os.ReadFile(filepath.Join(s.dir.Consumer(c), consumerState))
		if errors.Is(err, fs.ErrNotExist) {
			continue // as before
		}
		if err != nil {
			return fmt.Errorf("read where consumer %s stands: %w", c.Name, err)
		}
		if _, err := DecodePosition(file); err != nil {
			// Of a version that cannot be compared with another one, so it has to do itself.
			if err := syncAll(s.dir.Consumer(c)); err != nil {
				return err
			}
			delete(s.copies, c)
			continue
		}
		s.copies[c] = standingCopy{Created: created, File: file}
	}
	data, err := json.Marshal(s.copies)
	if err != nil {
		return err
	}
	return writeSynced(s.path(), data)
}

// restore puts a copy in the place of a file that is not there, cannot be read or tells of an earlier time. The server must not run.
func (s *standing) restore() error {
	s.copies = nil
	if err := s.read(); err != nil {
		return err
	}
	for c, kept := range s.copies {
		created, err := s.dir.created(c)
		if err != nil || !created.Equal(kept.Created) {
			continue // it was removed
		}
		was, err := DecodePosition(kept.File)
		if err != nil {
			continue // of another version
		}
		path := filepath.Join(s.dir.Consumer(c), consumerState)
		file, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read where consumer %s stands: %w", c.Name, err)
		}
		if is, err := DecodePosition(file); err == nil && !is.before(was) {
			continue
		}
		if err := writeSynced(path, kept.File); err != nil {
			return fmt.Errorf("put back where consumer %s stands: %w", c.Name, err)
		}
	}
	return nil
}

// read reads the copies, once.
func (s *standing) read() error {
	if s.copies != nil {
		return nil
	}
	copies := map[Consumer]standingCopy{}
	data, err := os.ReadFile(s.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read where consumers stand: %w", err)
	case json.Unmarshal(data, &copies) != nil || copies == nil:
		copies = map[Consumer]standingCopy{} // it is written whole or not at all, so a disk has damaged it; the server's own files may well be good
	}
	s.copies = copies
	return nil
}

// created tells when a consumer was made.
func (f Folder) created(c Consumer) (time.Time, error) {
	data, err := os.ReadFile(filepath.Join(f.Consumer(c), consumerMeta))
	if err != nil {
		return time.Time{}, err
	}
	var meta struct {
		Created time.Time `json:"Created"`
	}
	err = json.Unmarshal(data, &meta)
	return meta.Created, err
}

// writeSynced replaces a file, whole or not at all.
func writeSynced(name string, data []byte) error {
	fresh := name + ".new"
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return errors.Join(os.Rename(fresh, name), syncPath(filepath.Dir(name)))
}
