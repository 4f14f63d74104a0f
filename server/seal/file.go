package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// maxFile bounds what is read of a key file, in bytes.
const maxFile = 64 << 10

// head is what a new key file begins with.
const head = `# The keys under which eventrelay encrypts the secrets that it stores, a line each: 32 bytes in base64, as from ` + "`openssl rand -base64 32`" + `.
# The first key encrypts, all of them decrypt. Keep a copy: without its key, what was stored under it is lost.
# To replace a key, put a new one on the first line and restart. The secrets are then encrypted anew at the start, and the old key can go.
# Relays that share a log must share the keys: there, add the new key to every relay as the second line first, then move it up.
`

// Load reads the keys from a file: a line each, the one that encrypts first; empty lines and those that begin with # are left out. If there is no such file it is made, with one
// new key, readable by its owner only, and durable when Load returns; its folder is made too.
//
// An error names the file and the line, and never shows anything of a key. A file that others than its owner can read is read all the same, with a warning; a nil logger
// discards it.
func Load(path string, logger *slog.Logger) (*Keys, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("make the key file: %w", err)
		}
		logger.Info("made a key for the secrets at rest; keep a copy of the file", "path", path)
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		logger.Warn("others than its owner have access to the key file; chmod 600 it", "path", path, "mode", mode.String())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is over %d KiB, so it is no key file", path, maxFile>>10)
	}
	keys, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// parse reads the content of a key file.
func parse(data []byte) (*Keys, error) {
	var raw [][]byte
	number := 0
	for line := range bytes.Lines(data) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		// What the decoder says would quote the key.
		key, err := base64.StdEncoding.Strict().DecodeString(string(line))
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("line %d is not %d bytes in base64; make a key with `openssl rand -base64 %d`", number, keySize, keySize)
		}
		raw = append(raw, key)
	}
	if len(raw) == 0 {
		return nil, fmt.Errorf("it has no key; add a line made with `openssl rand -base64 %d`", keySize)
	}
	return newKeys(raw)
}

// keyID is a number that is the same wherever the key is used. It says nothing of the key that helps to find it.
func keyID(key []byte) uint32 {
	sum := sha256.Sum256(append([]byte("eventrelay key id\x00"), key...))
	return binary.BigEndian.Uint32(sum[:]) | 1 // never 0, which means none
}

// create makes a key file with one key. It is written aside and then linked, so that it is whole or not there, and of two who make it at once one wins.
func create(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	f, err := os.CreateTemp(dir, ".secrets-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a name that is left over harms nobody
	_, err = f.WriteString(head + base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
