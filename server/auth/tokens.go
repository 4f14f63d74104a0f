package auth

import (
	"crypto/sha256"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// maxToken is the longest token that is looked at, in bytes. Those of `eventrelay tokens new` have 56.
const maxToken = 512

// emptyDigest is the SHA-256 of nothing: what `sha256sum < /dev/null` leaves when a token was not there. Nothing that is shown has it.
var emptyDigest = digest(sha256.Sum256(nil))

// digest is the SHA-256 of a token.
type digest [sha256.Size]byte

// token is an entry of the tokens file.
type token struct {
	name string
	role Role
	// expires is when the token ends; zero for never.
	expires time.Time
}

// Tokens are the tokens of a file. They may be asked from any number of goroutines at once, also while the file changes.
type Tokens struct {
	byDigest atomic.Pointer[map[digest]token]
}

// OpenTokens reads the tokens file at path, and again whenever it changes: a token that is added or removed counts from then on. An error names line and field of what is
// wrong and shows no hash.
//
// A file that others may read or write is taken all the same, with a warning only if they may write: a hash is no token, secrets are often mounted as 0644 or 0440, and
// who may write the file may let anybody in.
func OpenTokens(files *Files, path string, logger *slog.Logger) (*Tokens, error) {
	t := &Tokens{}
	err := files.Open("--tokens-file", func(contents [][]byte) error {
		parsed, err := parseTokens(path, contents[0])
		if err != nil {
			return err
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o022 != 0 {
			logger.Warn("others than its owner can write the tokens file and so let anybody in; chmod 644 it", "path", path, "mode", info.Mode().Perm().String())
		}
		t.byDigest.Store(&parsed)
		return nil
	}, path)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// find returns the token of a digest. An expired one comes with ErrTokenExpired.
func (t *Tokens) find(d digest) (token, error) {
	found, ok := (*t.byDigest.Load())[d]
	switch {
	case !ok:
		return token{}, ErrTokenInvalid
	case !found.expires.IsZero() && !time.Now().Before(found.expires):
		return found, ErrTokenExpired
	}
	return found, nil
}

// digestOf takes the token out of the values of the authorization header, which must be exactly one: with two it would be undecided which one counts.
func digestOf(authorization []string) (digest, error) {
	if len(authorization) == 0 {
		return digest{}, ErrTokenMissing
	}
	scheme, shown, found := strings.Cut(authorization[0], " ")
	shown = strings.Trim(shown, " ")
	switch {
	case len(authorization) > 1, len(shown) > maxToken:
		return digest{}, ErrTokenInvalid
	case !found, !strings.EqualFold(scheme, "Bearer"), shown == "":
		return digest{}, ErrTokenMissing
	}
	return sha256.Sum256([]byte(shown)), nil
}
