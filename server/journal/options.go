package journal

import (
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft-wal/types"
)

// Options tune a journal. The zero value works.
type Options struct {
	// MaxBytes bounds the bytes of the records that are not trimmed yet, as stored.
	// Default 4 GiB.
	MaxBytes int64
	// MinFreeBytes is how much free disk must remain: with less, Append is refused.
	// Default 256 MiB. Room for two segments is asked for in any case.
	MinFreeBytes int64
	// SegmentBytes is the size of a segment file, preallocated; disk is given back
	// by whole segments. Default 64 MiB, at most 1 GiB.
	SegmentBytes int
	// Logger gets what Open finds damaged and what cannot be cleaned up. nil
	// discards it.
	Logger *slog.Logger

	vfs    types.VFS                   // where segments lie; the real file system unless a test says otherwise
	free   func(string) (int64, error) // free bytes of the folder's file system
	recent int                         // bytes of the latest records kept in memory; negative for none
}

const (
	defaultMaxBytes     = 4 << 30
	defaultMinFreeBytes = 256 << 20
	defaultSegmentBytes = 64 << 20
	// maxSegmentBytes leaves room below 4 GiB, the reach of the engine's 32-bit
	// offsets, for the batch that overshoots the end of a segment.
	maxSegmentBytes = 1 << 30
)

func (o *Options) withDefaults() error {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFreeBytes
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.vfs == nil {
		o.vfs = newVFS()
	}
	if o.recent == 0 {
		o.recent = defaultRecentBytes
	}
	if o.free == nil {
		o.free = freeBytes
	}
	if o.MaxBytes < 0 || o.MinFreeBytes < 0 || o.SegmentBytes < 0 || o.SegmentBytes > maxSegmentBytes {
		return fmt.Errorf("journal options: MaxBytes %d, MinFreeBytes %d and SegmentBytes %d must not be negative, SegmentBytes at most %d",
			o.MaxBytes, o.MinFreeBytes, o.SegmentBytes, maxSegmentBytes)
	}
	return nil
}
