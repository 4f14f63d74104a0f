package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/eventlog"
	"eventrelay/server/seal"
	"eventrelay/server/source"
)

// openSources opens the sources: those of the file, the development sources if asked, and those that were created by calls and lie sealed in the log and in the data folder.
// Sources may require a client certificate if the ports can check one.
func openSources(ctx context.Context, c config, log *eventlog.Log, clientCertificates bool, logger *slog.Logger) (*source.Store, error) {
	var fixed []*eventrelayv1.Source
	if c.SourcesFile != "" {
		loaded, err := source.Load(c.SourcesFile, logger)
		if err != nil {
			return nil, fmt.Errorf("--sources-file: %w", err)
		}
		fixed = loaded
	}
	if c.Dev {
		fixed = append(fixed, source.Dev()...)
	}
	keyFile, err := c.keyFile()
	if err != nil {
		return nil, err
	}
	keys, err := seal.Load(keyFile, logger)
	if err != nil {
		return nil, fmt.Errorf("--secrets-key-file: %w", err)
	}
	sources, err := source.Open(ctx, source.Options{
		Fixed: fixed, Bucket: log.Bucket("sources"), Keys: keys, Snapshot: filepath.Join(c.DataDir, "sources.sealed"),
		ClientCertificates: clientCertificates, Logger: logger,
	})
	if err != nil {
		return nil, c.sourcesFailed(err)
	}
	if list, err := sources.List(); err == nil && len(list) == 0 {
		logger.Warn("no sources: every webhook is answered 404; create one with POST /v1/sources, or give --sources-file, or --dev for development")
	}
	return sources, nil
}

// sourcesFailed says what to do about an error of the sources, be it at the start or when the log could be reached.
func (c *config) sourcesFailed(err error) error {
	if !errors.Is(err, seal.ErrWrongKey) && !errors.Is(err, seal.ErrDamaged) {
		return fmt.Errorf("sources: %w", err)
	}
	keyFile, _ := c.keyFile() // it was found when the sources were opened
	return fmt.Errorf("--secrets-key-file: the sources cannot be read with the keys in %s: %w; "+
		"put the key that they were stored under back into the file, or name the file that has it", keyFile, err)
}

// keyFile is where the keys for the secrets at rest lie.
func (c *config) keyFile() (string, error) {
	path := c.SecretsKeyFile
	switch {
	case path != "":
	case c.NATSURL != "":
		return "", errors.New("--secrets-key-file: it is required with --nats-url, because all relays that share a log must have the same keys; " +
			"name a file outside --data-dir (the first relay makes it, the others get a copy)")
	default:
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("--secrets-key-file: this user has no configuration folder (%w); name a file outside --data-dir", err)
		}
		path = filepath.Join(dir, "eventrelay", "secrets.keys")
	}
	if within(c.DataDir, path) {
		return "", fmt.Errorf("--secrets-key-file: %s lies in --data-dir, so a copy of the data would come with the key to it; name a file elsewhere", path)
	}
	return path, nil
}

// within reports whether a path lies in a folder, with symbolic links followed.
func within(folder, path string) bool {
	rel, err := filepath.Rel(resolve(folder), resolve(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolve follows the symbolic links in a path of which the end need not be there.
func resolve(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		return filepath.Join(resolve(filepath.Dir(path)), filepath.Base(path))
	}
	if err != nil {
		return path
	}
	return resolved
}
