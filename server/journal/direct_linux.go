package journal

import (
	"os"
	"syscall"
)

// openPast opens a file to be written past the page cache, and to be on disk when a write returns.
func openPast(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|syscall.O_DIRECT|syscall.O_DSYNC, 0)
}
