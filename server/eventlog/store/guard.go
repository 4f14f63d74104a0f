package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// guardDir holds, while the embedded server starts, a second name of every file of its streams. A server that cannot recover a stream, be it for a read error that is gone
// at the next attempt, deletes the stream's folder and goes on without it; by their second names the files outlive that. The names are links, so they take no room and no
// time to speak of.
const guardDir = "guard"

const (
	// deletionTime is longer than the server goes on trying to delete a stream's folder, and deletionLook how often it is looked whether it has.
	deletionTime = 1500 * time.Millisecond
	deletionLook = 50 * time.Millisecond
)

// batchesDir is the folder in a stream's own where the server stages atomic batches.
const batchesDir = "batches"

// A guard keeps the streams of a store while the server recovers them.
type guard struct {
	dir   Folder
	log   *slog.Logger
	files []string // below the store, those of streams
}

// streamFile reports whether a path below the store is one without which a stream is not what it was. An index is not: it is rebuilt.
func streamFile(path string) bool {
	switch filepath.Ext(path) {
	case ".blk", ".inf", ".sum", ".key", ".dat":
		return true
	}
	return false
}

// newGuard puts back what an interrupted start has deleted, and guards what is there.
func newGuard(dir Folder, log *slog.Logger) (*guard, error) {
	g := &guard{dir: dir, log: log}
	if err := g.restore(); err != nil {
		return nil, fmt.Errorf("restore event log: %w", err)
	}
	// Made under another name first: a guard that is there is whole.
	unfinished := filepath.Join(string(dir), guardDir+".unfinished")
	if err := os.RemoveAll(unfinished); err != nil {
		return nil, fmt.Errorf("guard event log: %w", err)
	}
	if err := g.each(dir.streams(), func(file string) error {
		g.files = append(g.files, file)
		return secondName(filepath.Join(dir.streams(), file), filepath.Join(unfinished, file))
	}); err != nil {
		return nil, fmt.Errorf("guard event log: %w", err)
	}
	if len(g.files) == 0 {
		return g, nil
	}
	if err := errors.Join(os.Rename(unfinished, filepath.Join(string(dir), guardDir)), syncPath(string(dir))); err != nil {
		return nil, fmt.Errorf("guard event log: %w", err)
	}
	return g, nil
}

// each calls do with the stream files below root, by their paths from there.
func (g *guard) each(root string, do func(file string) error) error {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == batchesDir {
			return fs.SkipDir // what was staged of a batch that was never acknowledged: the server rightly removes it
		}
		if !e.Type().IsRegular() || !streamFile(path) {
			return nil
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return do(file)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func secondName(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Link(from, to)
}

// lost returns the folder of a stream that the server has not recovered, "" if it has all: unrecovered is the name of one that it says so of. It deletes such a stream, but by
// and by, so what it says counts, and else whether the description is gone, which is the first thing that it looks for. Consumers have one too, and may go.
func (g *guard) lost(unrecovered string) string {
	for _, file := range g.files {
		folder := filepath.Dir(file)
		if filepath.Base(file) != "meta.inf" || filepath.Base(filepath.Dir(folder)) != "streams" {
			continue
		}
		if _, err := os.Stat(filepath.Join(g.dir.streams(), file)); errors.Is(err, fs.ErrNotExist) || filepath.Base(folder) == unrecovered {
			return folder
		}
	}
	return ""
}

// restore puts every guarded file back that is not where it was, and ends the guard. It may be interrupted and repeated.
func (g *guard) restore() error {
	back, err := g.putBack()
	switch {
	case err != nil:
		return err
	case back > 0:
		return g.restoreDeleted()
	}
	return g.end()
}

// restoreDeleted is restore while a server may still be at it: it deletes a stream behind its own end, and tries again for a second. So files are put back until none has gone
// for longer than that.
func (g *guard) restoreDeleted() error {
	total := 0
	for quiet := time.Duration(0); quiet < deletionTime; quiet += deletionLook {
		back, err := g.putBack()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a folder that is deleted while a file is put into it comes back with the next look
			return err
		}
		if total += back; back > 0 || err != nil {
			quiet = 0
		}
		time.Sleep(deletionLook)
	}
	if total > 0 {
		g.log.Warn("files of the event log that were deleted during a start are put back", "files", total)
	}
	return g.end()
}

// putBack puts back what is missing and returns how many files that were.
func (g *guard) putBack() (back int, err error) {
	err = g.each(filepath.Join(string(g.dir), guardDir), func(file string) error {
		to := filepath.Join(g.dir.streams(), file)
		if _, err := os.Lstat(to); err == nil {
			return nil
		}
		back++
		if err := secondName(filepath.Join(string(g.dir), guardDir, file), to); err != nil {
			return err
		}
		// The index that is left speaks of a store without the file.
		if err := os.Remove(filepath.Join(filepath.Dir(to), indexFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return g.dir.SyncTree(filepath.Dir(to))
	})
	return back, err
}

// end lets the guarded files go.
func (g *guard) end() error { return os.RemoveAll(filepath.Join(string(g.dir), guardDir)) }
