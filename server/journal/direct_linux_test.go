package journal

import (
	"path/filepath"
	"syscall"
)

// canWriteDirect tells, without the code under test, whether a file in a folder can be opened for direct writes.
func canWriteDirect(dir string) bool {
	fd, err := syscall.Open(filepath.Join(dir, "probe"), syscall.O_CREAT|syscall.O_WRONLY|syscall.O_DIRECT, 0o600)
	if err != nil {
		return false
	}
	return syscall.Close(fd) == nil
}
