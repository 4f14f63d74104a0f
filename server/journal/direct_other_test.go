//go:build !linux

package journal

func canWriteDirect(string) bool { return false }
