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
	// copies are by stream/consumer. nil is not read yet.
	copies map[string]standingCopy
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
	for name := range s.copies {
		if _, err := createdOf(s.dir, name); errors.Is(err, fs.ErrNotExist) {
			delete(s.copies, name) // the consumer was removed
		}
	}
	for _, key := range consumers {
		name := key.Stream + "/" + key.Name
		created, err := createdOf(s.dir, name)
		if err != nil {
			continue // it was removed, or it is being changed and has its copy the next time
		}
		file, err := os.ReadFile(filepath.Join(s.dir.Consumer(key), consumerState))
		if errors.Is(err, fs.ErrNotExist) {
			continue // as before
		}
		if err != nil {
			return fmt.Errorf("read where consumer %s stands: %w", key.Name, err)
		}
		if _, err := DecodePosition(file); err != nil {
			// Of a version that cannot be compared with another one, so it has to do itself.
			if err := syncAll(s.dir.Consumer(key)); err != nil {
				return err
			}
			delete(s.copies, name)
			continue
		}
		s.copies[name] = standingCopy{Created: created, File: file}
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
	for name, kept := range s.copies {
		created, err := createdOf(s.dir, name)
		if err != nil || !created.Equal(kept.Created) {
			continue // it was removed
		}
		was, err := DecodePosition(kept.File)
		if err != nil {
			continue // of another version
		}
		stream, consumer := filepath.Split(name)
		path := filepath.Join(s.dir.Consumer(Consumer{filepath.Clean(stream), consumer}), consumerState)
		file, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read where consumer %s stands: %w", consumer, err)
		}
		if is, err := DecodePosition(file); err == nil && !is.before(was) {
			continue
		}
		if err := writeSynced(path, kept.File); err != nil {
			return fmt.Errorf("put back where consumer %s stands: %w", consumer, err)
		}
	}
	return nil
}

// read reads the copies, once.
func (s *standing) read() error {
	if s.copies != nil {
		return nil
	}
	copies := map[string]standingCopy{}
	data, err := os.ReadFile(s.path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read where consumers stand: %w", err)
	case json.Unmarshal(data, &copies) != nil:
		copies = map[string]standingCopy{} // it is written whole or not at all, so a disk has damaged it; the server's own files may well be good
	}
	s.copies = copies
	return nil
}

// createdOf tells when the consumer of that name was made.
func createdOf(dir Folder, name string) (time.Time, error) {
	data, err := os.ReadFile(filepath.Join(dir.Consumer(Consumer{filepath.Dir(name), filepath.Base(name)}), consumerMeta))
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
	return errors.Join(os.Rename(fresh, name), syncDir(filepath.Dir(name)))
}
