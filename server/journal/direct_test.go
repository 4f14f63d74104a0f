package journal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// madeDirect makes a file that is written past the page cache.
func madeDirect(t *testing.T, size uint64) (*directFile, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := newVFS().Create(dir, "file", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d, ok := f.(*directFile)
	if !ok {
		if canWriteDirect(dir) {
			t.Fatal("the file system takes direct writes, and is not asked for them")
		}
		t.Skip("this file system writes through the page cache only")
	}
	return d, filepath.Join(dir, "file")
}

// wantFile holds a file against what was written, behind which there must be nothing.
func wantFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
		t.Fatalf("of %d bytes the file has others", len(want))
	}
	if rest := bytes.Trim(got[len(want):], "\x00"); len(rest) > 0 {
		t.Fatalf("behind %d bytes lie %d more", len(want), len(rest))
	}
}

func someBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + rand.N(255))
	}
	return b
}

// Lone records have the file filled, a large batch right behind them comes upon the zeros, and all the while somebody reads.
func TestWhatIsWrittenPastThePageCacheIsThere(t *testing.T) {
	const size = 32 << 20
	f, name := madeDirect(t, size)
	all, written := someBytes(size), int64(0)
	var reading sync.WaitGroup
	var end atomic.Int64
	done := make(chan struct{})
	reading.Go(func() {
		b := make([]byte, 64<<10)
		for {
			select {
			case <-done:
				return
			default:
			}
			n := end.Load()
			if n == 0 {
				continue
			}
			from := max(0, n-rand.N(int64(len(b))))
			if got, err := f.ReadAt(b[:n-from], from); err != nil || !bytes.Equal(b[:got], all[from:n]) {
				t.Errorf("%d bytes at %d are read as others (%v)", n-from, from, err)
				return
			}
		}
	})
	defer func() {
		close(done)
		reading.Wait()
	}()
	for round := 0; written < size-2<<20; round++ {
		n := 1 + rand.N(int64(3000))
		switch {
		case f.alone == loneRow:
			n = fillAhead + rand.N(int64(fillBytes)) // into the zeros that the one before has begun
		case round%7 == 0:
			n = blockBytes - written%blockBytes // to the end of a block
		}
		if got, err := f.WriteAt(all[written:written+n], written); int64(got) != n || err != nil {
			t.Fatalf("wrote %d of %d bytes at %d: %v", got, n, written, err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		written += n
		end.Store(written)
	}
	if f.usual {
		t.Error("it was written through the page cache")
	}
	if f.fillEnd == 0 {
		t.Error("it was never filled")
	}
	wantFile(t, name, all[:written])
}

// Under load small batches come too, and zeros would be as much again as is written.
func TestSmallBatchesAmongLargeOnesHaveNothingFilled(t *testing.T) {
	f, _ := madeDirect(t, 16<<20)
	at := int64(0)
	for range 5 {
		for range loneRow - 1 {
			at += write(t, f, someBytes(600), at)
		}
		at += write(t, f, someBytes(loneBytes+1), at)
	}
	if f.fillEnd != 0 {
		t.Error("it was filled")
	}
	for range loneRow {
		at += write(t, f, someBytes(600), at)
	}
	if f.fillEnd == 0 {
		t.Error("it was not filled for lone records")
	}
}

// write writes, and returns how much.
func write(t *testing.T, f *directFile, b []byte, at int64) int64 {
	t.Helper()
	n, err := f.WriteAt(b, at)
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

// The engine may give up a tail and write there again, whatever is being filled just then.
func TestWhatIsNotWrittenInARowGoesThroughThePageCache(t *testing.T) {
	for range 10 {
		f, name := madeDirect(t, 4<<20)
		want := someBytes(2 << 20)
		for at := int64(0); at < 600*loneRow; {
			at += write(t, f, someBytes(600), at)
		}
		if _, err := f.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		more := someBytes(3000)
		if _, err := f.WriteAt(more, int64(len(want))); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if !f.usual {
			t.Error("it was written past the page cache")
		}
		wantFile(t, name, append(want, more...))
	}
}

// A relay that is started again goes on in the segment that it finds, in the middle of a block.
func TestAFileThatIsOpenedAgainIsWrittenOnPastThePageCache(t *testing.T) {
	f, name := madeDirect(t, 4<<20)
	want := someBytes(10_000)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	for _, garbage := range []int64{0, 3 << 20} {
		if garbage > 0 {
			if _, err := f.WritableFile.WriteAt([]byte("garbage"), garbage); err != nil {
				t.Fatal(err)
			}
		}
		opened, err := newVFS().OpenWriter(filepath.Dir(name), filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			b := someBytes(3000)
			if _, err := opened.WriteAt(b, int64(len(want))); err != nil {
				t.Fatal(err)
			}
			want = append(want, b...)
		}
		if err := errors.Join(opened.Sync(), opened.Close()); err != nil {
			t.Fatal(err)
		}
		if usual := opened.(*directFile).usual; usual != (garbage > 0) {
			t.Errorf("with garbage at %d it is written as usual: %v", garbage, usual)
		}
		whole := append(make([]byte, 0, 4<<20), want...)
		if garbage > 0 { // which a file that is not known to end there keeps
			whole = append(append(whole, make([]byte, garbage-int64(len(want)))...), "garbage"...)
		}
		wantFile(t, name, whole)
	}
}

func TestABatchMayGoBeyondTheEndOfADirectFile(t *testing.T) {
	f, name := madeDirect(t, 1<<20)
	want := someBytes(3 << 20)
	if _, err := f.WriteAt(want[:1<<20-10], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(want[1<<20-10:], 1<<20-10); err != nil {
		t.Fatal(err)
	}
	wantFile(t, name, want)
}

// refusing is a file that is asked for direct writes that it cannot do.
type refusing struct{ io.Closer }

func (refusing) WriteAt([]byte, int64) (int, error) { return 0, syscall.EINVAL }

func (refusing) Close() error { return nil }

// A disk with larger blocks, or a file system that changes its mind, refuses a direct write as invalid.
func TestAFileSystemThatRefusesDirectWritesIsWrittenThroughThePageCache(t *testing.T) {
	for before := range 2 {
		f, name := madeDirect(t, 4<<20)
		want := someBytes(20_000)
		n := before * 10_000
		if n > 0 {
			if _, err := f.WriteAt(want[:n], 0); err != nil {
				t.Fatal(err)
			}
		}
		f.settle()
		f.past.Close()
		f.past = refusing{}
		if _, err := f.WriteAt(want[n:], int64(n)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if !f.usual {
			t.Error("the refusal was not noticed")
		}
		wantFile(t, name, want)
	}
}
