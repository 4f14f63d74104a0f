package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Tokens of the tests, by what they are for.
const (
	readerToken   = "ert_reader-of-the-tests"
	operatorToken = "ert_operator-of-the-tests"
	expiredToken  = "ert_expired-of-the-tests"
)

// hashOf is what the tokens file says of a token.
func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hashPrefix + hex.EncodeToString(sum[:])
}

// entry is a token of the tokens file.
func entry(name, role, token string, more ...string) string {
	fields := append([]string{"role: " + role, "hash: " + hashOf(token)}, more...)
	return "  - name: " + name + "\n    " + strings.Join(fields, "\n    ") + "\n"
}

// three is a tokens file with one token of each kind.
func three() string {
	return "tokens:\n" + entry("billing", "reader", readerToken) + entry("ops", "operator", operatorToken) + entry("old", "operator", expiredToken, "expire_time: 2020-01-01T00:00:00Z")
}

// put writes a file whole.
func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// file writes a new file and returns its path.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, content)
	return path
}

// journal is a log that tests read; it may be written to while it is read.
type journal struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// world is what the tests of a guard need.
type world struct {
	log     *journal
	metrics *prometheus.Registry
	files   *Files
	path    string
	tokens  *Tokens
	guard   *Guard
}

// open opens a tokens file and a guard over it.
func open(t *testing.T, content string) *world {
	t.Helper()
	w := &world{log: &journal{}, metrics: prometheus.NewRegistry(), path: file(t, content)}
	w.files = NewFiles(w.metrics, w.log.logger())
	var err error
	if w.tokens, err = OpenTokens(w.files, w.path, w.log.logger()); err != nil {
		t.Fatal(err)
	}
	w.guard = NewGuard(w.tokens, w.metrics, w.log.logger())
	return w
}

// shows asks whether who shows a token may do what a role may.
func (w *world) shows(required Role, token string) error {
	return w.guard.Allow(context.Background(), "a call", required, []string{"Bearer " + token})
}

// counted is the value of a counter with one label.
func (w *world) counted(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && metric.GetLabel()[0].GetValue() == label {
				return metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s with %s", name, label)
	return 0
}

// hidesTokens fails if a text shows a token or the hash of one.
func hidesTokens(t *testing.T, text string) {
	t.Helper()
	for _, token := range []string{readerToken, operatorToken, expiredToken} {
		if strings.Contains(text, token) || strings.Contains(text, strings.TrimPrefix(hashOf(token), hashPrefix)) {
			t.Errorf("a token or its hash is shown: %s", text)
		}
	}
}
