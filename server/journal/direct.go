package journal

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"syscall"
	"unsafe"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

const (
	// blockBytes is what direct writes are made of: a page, and no less than a sector of any disk in use.
	blockBytes = 4096
	// fillBytes is written at a time to fill a file, and fillAhead is how far behind the records that is done:
	// far enough that a lone record does not come upon it, near enough that a short file is filled at all.
	fillBytes = 1 << 20
	fillAhead = 64 << 10
	// loneBytes is how large a write is at most for which it is worth having the file filled: with more records
	// in it there are fewer writes, and the disk has no time for zeros. loneRow is after how many of them in a row that begins: a few
	// small writes there are among large ones too.
	loneBytes = 32 << 10
	loneRow   = 16
)

// directVFS is the file system, on which segments are written past the page cache where it can do that. One
// write makes a batch durable: no page is looked up, dirtied and written back, and where the file is filled, no metadata of the
// file system has to be written with it.
type directVFS struct{ *fs.FS }

func newVFS() types.VFS { return directVFS{fs.New()} }

// Create implements types.VFS.
func (v directVFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := v.FS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	return direct(f, dir, name, 0), nil
}

// OpenWriter implements types.VFS.
func (v directVFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := v.FS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return direct(f, dir, name, unknown), nil
}

// direct has a file that ends somewhere written past the page cache, if that can be done there.
func direct(f types.WritableFile, dir, name string, end int64) types.WritableFile {
	past, err := openPast(filepath.Join(dir, name))
	if err != nil {
		return f
	}
	fi, err := past.Stat()
	if err != nil {
		_ = past.Close() // nothing was written
		return f
	}
	d := &directFile{WritableFile: f, past: past, size: fi.Size(), end: end}
	d.filled.L = &d.mu
	return d
}

// unknown is the end of a file that was there already, until the first write says where it is.
const unknown = -1

// directFile is written a batch behind the other, with nothing but zeros behind the last. Only one goroutine writes; any may read.
type directFile struct {
	types.WritableFile
	past interface {
		io.WriterAt
		io.Closer
	}
	size int64 // as it was made

	last   []byte // what the block holds in which the file ends
	synced bool   // the file has its name on disk
	usual  bool   // it is written through the page cache from now on
	alone  int    // lone records in a row

	mu       sync.Mutex // guards what follows
	end      int64      // of what is written, or being written
	fillEnd  int64      // of the zeros that are written, or being written
	fillFrom int64      // of those that are being written
	filling  bool
	filled   sync.Cond // filling has changed
}

// WriteAt implements io.WriterAt. When it returns, what it wrote is on disk.
func (f *directFile) WriteAt(b []byte, off int64) (int, error) {
	if !f.usual && f.enter(off, int64(len(b))) {
		err := f.write(b, off)
		if err == nil {
			f.fill(len(b))
			return len(b), nil
		}
		if !errors.Is(err, syscall.EINVAL) {
			return 0, err
		}
	}
	f.usual = true // it is not written in a row, or the disk has other blocks
	f.settle()
	return f.WritableFile.WriteAt(b, off)
}

// enter reserves a piece of the file that follows what is written, and waits until no zeros are being written there.
func (f *directFile) enter(off, n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end == unknown && f.endsAt(off) {
		f.end = off
	}
	if off != f.end {
		return false
	}
	f.end += n
	for f.filling && f.fillFrom < roundUp(f.end) {
		f.filled.Wait()
	}
	return true
}

// endsAt takes in the block that a file ends in, and tells whether zeros are all that is behind.
func (f *directFile) endsAt(off int64) bool {
	start := off &^ (blockBytes - 1)
	f.last = make([]byte, off-start)
	if n, _ := f.ReadAt(f.last, start); n < len(f.last) {
		return false
	}
	b := make([]byte, fillBytes)
	for at := off; at < f.size; at += fillBytes {
		b = b[:min(fillBytes, f.size-at)]
		if n, _ := f.ReadAt(b, at); n < len(b) || !bytes.Equal(b, zeros[:n]) {
			return false
		}
	}
	return true
}

// write writes whole blocks: before b what the first one holds already, behind it zeros, as they are there.
func (f *directFile) write(b []byte, off int64) error {
	start := off - int64(len(f.last))
	end := off + int64(len(b)) - start
	buf, _ := blocks.Get().(*[]byte) // the pool makes nothing else
	if int64(cap(*buf)) < roundUp(end) {
		*buf = aligned(2 * roundUp(end))
	}
	whole := (*buf)[:roundUp(end)]
	n := copy(whole, f.last)
	n += copy(whole[n:], b)
	clear(whole[n:])
	_, err := f.past.WriteAt(whole, start)
	f.last = append(f.last[:0], whole[end&^(blockBytes-1):end]...)
	if cap(*buf) <= maxPooled {
		blocks.Put(buf)
	}
	return err
}

// Sync implements types.WritableFile.
func (f *directFile) Sync() error {
	if f.synced && !f.usual {
		return nil
	}
	if err := f.WritableFile.Sync(); err != nil { // which syncs the folder too, the first time
		return err
	}
	f.synced = true
	return nil
}

// Close implements io.Closer.
func (f *directFile) Close() error {
	f.settle()
	return errors.Join(f.past.Close(), f.WritableFile.Close())
}

// fill has zeros written ahead of the last of many lone records, over those that are there: blocks that have never been written cost each write a change of the file system's metadata.
func (f *directFile) fill(written int) {
	if f.alone++; written > loneBytes {
		f.alone = 0
	}
	if f.alone < loneRow {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	from := max(f.fillEnd, roundUp(f.end+fillAhead))
	if f.filling || from-f.end > fillBytes || from+fillBytes > f.size {
		return
	}
	f.filling, f.fillFrom, f.fillEnd = true, from, from+fillBytes
	go func() {
		_, _ = f.past.WriteAt(zeros, from) // what cannot be filled is slower, no more
		f.mu.Lock()
		defer f.mu.Unlock()
		f.filling = false
		f.filled.Broadcast()
	}()
}

// settle waits until nothing is being filled.
func (f *directFile) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.filling {
		f.filled.Wait()
	}
}

func roundUp(n int64) int64 { return (n + blockBytes - 1) &^ (blockBytes - 1) }

// blocks holds the memory that writes are made of.
var blocks = sync.Pool{New: func() any { return new(aligned(256 << 10)) }}

// aligned returns n bytes that begin where a block of memory does.
func aligned(n int64) []byte {
	b := make([]byte, n+blockBytes)
	skip := -int64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (blockBytes - 1) //nolint:gosec // where it lies is all that is asked
	return b[skip : skip+n : skip+n]
}

// zeros is what files are filled with.
var zeros = aligned(fillBytes)
