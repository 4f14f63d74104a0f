package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft-wal/types"
)

var errDisk = errors.New("the disk says no")

// A sickDisk is the real file system with an illness that a test turns on.
type sickDisk struct {
	types.VFS
	mu     sync.Mutex
	write  error         // what writes return
	torn   int           // how many bytes of a failing write arrive
	sync   error         // what fsync returns
	create error         // what making a segment returns
	delete error         // what deleting one returns
	hang   chan struct{} // fsync waits until it is closed
	inSync chan struct{} // told of each fsync that begins to wait
}

func newSickDisk() *sickDisk { return &sickDisk{VFS: newVFS(), inSync: make(chan struct{}, 100)} }

func (d *sickDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *sickDisk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	d.mu.Lock()
	err := d.create
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	f, err := d.VFS.Create(dir, name, size)
	return &sickFile{f, d}, err
}

func (d *sickDisk) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.VFS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return &sickFile{f, d}, nil
}

func (d *sickDisk) Delete(dir, name string) error {
	d.mu.Lock()
	err := d.delete
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.VFS.Delete(dir, name)
}

type sickFile struct {
	types.WritableFile
	d *sickDisk
}

func (f *sickFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	err, torn := f.d.write, f.d.torn
	f.d.mu.Unlock()
	if err != nil {
		n, _ := f.WritableFile.WriteAt(b[:min(torn, len(b))], off)
		return n, err
	}
	return f.WritableFile.WriteAt(b, off)
}

func (f *sickFile) Sync() error {
	f.d.mu.Lock()
	err, hang := f.d.sync, f.d.hang
	f.d.mu.Unlock()
	if hang != nil {
		f.d.inSync <- struct{}{}
		<-hang
	}
	if err != nil {
		return err
	}
	return f.WritableFile.Sync()
}

func TestAfterAFailedWriteOrSyncNothingIsAcceptedUntilReopened(t *testing.T) {
	for name, illness := range map[string]func(*sickDisk){
		"write":      func(d *sickDisk) { d.write = errDisk },
		"torn write": func(d *sickDisk) { d.write, d.torn = errDisk, 70 },
		"sync":       func(d *sickDisk) { d.sync = errDisk },
	} {
		t.Run(name, func(t *testing.T) {
			dir, disk, o := t.TempDir(), newSickDisk(), small()
			o.vfs = disk
			j := mustOpen(t, dir, o)
			appendSamples(t, j, 1, 30)
			disk.set(func() { illness(disk) })
			if _, err := j.Append(context.Background(), sample(31)); !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) {
				t.Fatalf("the failing append: %v", err)
			}
			disk.set(func() { disk.write, disk.sync = nil, nil })
			if _, err := j.Append(context.Background(), sample(31)); !errors.Is(err, ErrFailed) || !errors.Is(j.Err(), ErrFailed) {
				t.Fatalf("the disk is well again: append %v, Err %v", err, j.Err())
			}
			if j.Last() != 30 {
				t.Fatalf("the last durable record is %d", j.Last())
			}
			checkSamples(t, j, 1, 30)
			if err := j.Trim(10); err != nil {
				t.Fatal(err)
			}
			j.Close()
			j = mustOpen(t, dir, small())
			last := int(j.Last()) // the record whose sync failed may be there
			if last != 30 && last != 31 {
				t.Fatalf("after reopening the last record is %d", last)
			}
			checkSamples(t, j, 11, last)
			appendSamples(t, j, last+1, last+40)
			checkSamples(t, j, 11, last+40)
		})
	}
}

func TestAFailureReachesThoseWhoWaitInTheQueue(t *testing.T) {
	disk, o := newSickDisk(), small()
	o.vfs = disk
	j := mustOpen(t, t.TempDir(), o)
	hang := make(chan struct{})
	disk.set(func() { disk.hang, disk.sync = hang, errDisk })
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release) // before the journal is closed, if the test fails
	failed := make(chan error, 20)
	appendOne := func() {
		_, err := j.Append(context.Background(), Record{Body: make([]byte, 100)})
		failed <- err
	}
	go appendOne()
	<-disk.inSync
	for range 19 {
		go appendOne()
	}
	await(t, "the others to queue", func() bool { return queued(j) == 19 })
	release()
	for range 20 {
		if err := <-failed; !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
	}
	if j.Last() != 0 || j.reserved != 0 {
		t.Fatalf("last %d, reserved %d", j.Last(), j.reserved)
	}
}

func TestNothingIsVisibleBeforeItsSyncReturns(t *testing.T) {
	disk, o := newSickDisk(), small()
	o.vfs = disk
	j := mustOpen(t, t.TempDir(), o)
	appendSamples(t, j, 1, 3)
	hang := make(chan struct{})
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release)
	disk.set(func() { disk.hang = hang })
	acked := make(chan error, 1)
	go func() {
		_, err := j.Append(context.Background(), sample(4))
		acked <- err
	}()
	<-disk.inSync // the bytes are written, the fsync is under way
	if j.Last() != 3 {
		t.Errorf("Last is %d", j.Last())
	}
	if good, _ := contentsOf(t, j, 1); len(good) != 3 {
		t.Errorf("%d records are read", len(good))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := j.Wait(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait returned %v", err)
	}
	select {
	case err := <-acked:
		t.Errorf("Append returned %v", err)
	default:
	}
	release()
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
	checkSamples(t, j, 1, 4)
}

func TestCancelledAppendLeavesTheOthersAlone(t *testing.T) {
	disk, o := newSickDisk(), small()
	o.vfs = disk
	j := mustOpen(t, t.TempDir(), o)
	hang := make(chan struct{})
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release)
	disk.set(func() { disk.hang = hang })
	ctx, cancel := context.WithCancel(context.Background())
	cancelled, kept := make(chan error, 11), make(chan error, 10)
	go func() {
		_, err := j.Append(ctx, Record{Body: []byte("taken")})
		cancelled <- err
	}()
	<-disk.inSync
	for range 10 {
		go func() {
			_, err := j.Append(ctx, Record{Body: []byte("given up")})
			cancelled <- err
		}()
		go func() {
			_, err := j.Append(context.Background(), Record{Body: []byte("kept")})
			kept <- err
		}()
	}
	await(t, "all to queue", func() bool { return queued(j) == 20 })
	cancel()
	for range 11 {
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	release()
	for range 10 {
		if err := <-kept; err != nil {
			t.Fatal(err)
		}
	}
	good, _ := contentsOf(t, j, 1)
	if len(good) != 11 || string(good[1].Body) != "taken" {
		t.Fatalf("%d records", len(good))
	}
	for i := uint64(2); i <= 11; i++ {
		if string(good[i].Body) != "kept" {
			t.Fatalf("record %d is %q", i, good[i].Body)
		}
	}
	if j.reserved != 0 {
		t.Fatalf("%d bytes stay reserved", j.reserved)
	}
	if _, err := j.Append(ctx, Record{}); !errors.Is(err, context.Canceled) || j.Last() != 11 {
		t.Fatalf("with a dead context: %v, last %d", err, j.Last())
	}
}

func TestASegmentThatCannotBeMadeStopsTheJournalWithItsCause(t *testing.T) {
	dir, disk, o := t.TempDir(), newSickDisk(), small()
	o.vfs = disk
	j := mustOpen(t, dir, o)
	appendSamples(t, j, 1, 3)
	disk.set(func() { disk.create = errDisk })
	n := 3
	var err error
	for err == nil && n < 100 {
		n++
		_, err = j.Append(context.Background(), sample(n))
	}
	if !errors.Is(err, ErrFailed) || !errors.Is(err, errDisk) {
		t.Fatalf("after %d records: %v", n, err)
	}
	checkSamples(t, j, 1, n-1)
	j.Close()
	j = mustOpen(t, dir, small())
	checkSamples(t, j, 1, n-1)
	appendSamples(t, j, n, n+50)
	checkSamples(t, j, 1, n+50)
}

func TestAMetaThatCannotBeWrittenStopsTheJournalWithItsCause(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, small())
	appendSamples(t, j, 1, 3)
	obstacle := filepath.Join(dir, metaFile+".tmp") // a folder where the file should go
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	n := 3
	var err error
	for err == nil && n < 100 {
		n++
		_, err = j.Append(context.Background(), sample(n))
	}
	var pathErr *os.PathError
	if !errors.Is(err, ErrFailed) || !errors.As(err, &pathErr) || pathErr.Path != obstacle {
		t.Fatalf("after %d records: %v", n, err)
	}
	j.Close()
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir, small())
	checkSamples(t, j, 1, n-1)
	appendSamples(t, j, n, n+50)
}

func TestATrimmedSegmentThatStaysIsDeletedByTheNextOpen(t *testing.T) {
	dir, disk, o := t.TempDir(), newSickDisk(), small()
	o.vfs = disk
	j := mustOpen(t, dir, o)
	appendSamples(t, j, 1, 200)
	before := segmentFiles(t, dir)
	disk.set(func() { disk.delete = errDisk })
	if err := j.Trim(190); err != nil {
		t.Fatal(err)
	}
	appendSamples(t, j, 201, 210)
	if after := segmentFiles(t, dir); after < before {
		t.Fatalf("%d segments of %d remain", after, before)
	}
	j.Close()
	j = mustOpen(t, dir, small())
	if after := segmentFiles(t, dir); after > 3 {
		t.Fatalf("%d segments remain", after)
	}
	checkSamples(t, j, 191, 210)
}

func TestDiskIsLookedAtOncePerSecondOrHalfASegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		d := disk{every: 100, look: func(string) (int64, error) { looks++; return int64(looks), nil }}
		d.free(10)
		d.free(50)
		if looks != 1 {
			t.Fatalf("%d looks", looks)
		}
		if d.free(51); looks != 2 {
			t.Fatalf("after much was written: %d looks", looks)
		}
		time.Sleep(lookAfter + 1)
		if free, _ := d.free(0); looks != 3 || free != 3 {
			t.Fatalf("after a second: %d looks", looks)
		}
	})
}

// queued is how many records wait for the writer.
func queued(j *Journal) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, b := range j.queue {
		n += len(b.entries)
	}
	return n
}

// await waits for a condition that another goroutine brings about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
