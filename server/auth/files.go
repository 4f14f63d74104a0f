package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// lookInterval is how often files are looked at. A change is taken over when two looks in a row have seen the same, so within a second: a file that is being
	// written is not read half.
	lookInterval = 500 * time.Millisecond
	// maxFile bounds what is read of a file, in bytes: ten thousand tokens stay below it.
	maxFile = 4 << 20
)

// Files are files that take effect again whenever they change. They are read whole at every look rather than by their times: the files are small, and mounts that swap
// links, restored backups and coarse clocks all leave times that say nothing.
//
// Open may be called until Run is; Run belongs to one goroutine.
type Files struct {
	logger   *slog.Logger
	failures *prometheus.CounterVec
	groups   []*group
}

// group is files that take effect together, such as a certificate and its key.
type group struct {
	flag  string
	paths []string
	apply func(contents [][]byte) error

	taken, seen [][]byte // what was last given to apply; what the last look saw
	problem     string   // the last problem that was logged
}

// NewFiles returns no files yet. A nil registerer registers nothing.
func NewFiles(registerer prometheus.Registerer, logger *slog.Logger) *Files {
	return &Files{
		logger: logger,
		failures: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "eventrelay_reload_failures_total", Help: "Changes of a file that could not be taken over; what was read before stays in force.",
		}, []string{"flag"}),
	}
}

// Open reads the files and hands their contents to apply, now and after every change. apply either takes them over whole or returns why not and leaves everything as
// it was. flag names the files in errors, logs and metrics.
func (f *Files) Open(flag string, apply func(contents [][]byte) error, paths ...string) error {
	g := &group{flag: flag, paths: paths, apply: apply}
	contents, err := g.read()
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	if err := apply(contents); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	g.taken, g.seen = contents, contents
	f.groups = append(f.groups, g)
	f.failures.WithLabelValues(flag)
	return nil
}

// Run looks at the files until ctx ends.
func (f *Files) Run(ctx context.Context) {
	if len(f.groups) == 0 {
		return
	}
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, g := range f.groups {
			f.look(g)
		}
	}
}

// look reads the files of a group and applies what has changed and settled.
func (f *Files) look(g *group) {
	contents, err := g.read()
	if err != nil {
		f.failed(g, err)
		return
	}
	settled := slices.EqualFunc(contents, g.seen, slices.Equal)
	g.seen = contents
	if !settled {
		return
	}
	if slices.EqualFunc(contents, g.taken, slices.Equal) {
		g.problem = ""
		return
	}
	g.taken = contents
	if err := g.apply(contents); err != nil {
		f.failed(g, err)
		return
	}
	g.problem = ""
	f.logger.Info("a changed file is in force", "flag", g.flag, "paths", g.paths)
}

// failed tells of a problem once, however often it is met.
func (f *Files) failed(g *group, err error) {
	if err.Error() == g.problem {
		return
	}
	g.problem = err.Error()
	f.failures.WithLabelValues(g.flag).Inc()
	f.logger.Error("a changed file cannot be taken over; what was read before stays in force", "flag", g.flag, "error", err)
}

// read returns the contents of the files.
func (g *group) read() ([][]byte, error) {
	contents := make([][]byte, 0, len(g.paths))
	for _, path := range g.paths {
		content, err := read(path)
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

// read reads one file. Anything but a file is refused before it is opened: opening a pipe waits for a writer.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s is over %d MiB", path, maxFile>>20)
	}
	return content, nil
}
