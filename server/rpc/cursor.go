package rpc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"sync/atomic"
)

// Sentinels of positions that clients bring along.
var (
	errCursorMalformed  = errors.New("not a cursor of this service: use one as it was received")
	errCursorForeign    = errors.New("the cursor belongs to another log, or to one that was wiped: start from a time or from an end")
	errPageTokenInvalid = errors.New("page_token: not a token of this list with this filter and order: begin with the first page")
)

// The kinds of token; the number is the first byte, and with it the version of the format.
const (
	cursorToken byte = 1
	pageToken   byte = 2
)

// tokenSize is kind, log, sequence, scope and check sum: 24 bytes are 32 characters of base64 without padding.
const tokenSize = 1 + 7 + 8 + 4 + 4

// token is a position that clients hold for us. It is opaque to them, bound to the log it was made for, and a mistyped one is told from a foreign one.
type token struct {
	kind     byte
	sequence uint64
	// scope binds a page token to the list it belongs to; 0 in a cursor.
	scope uint32
}

// logMark is what of a log's identity goes into a token.
func logMark(logID string) [7]byte {
	sum := sha256.Sum256([]byte(logID))
	return [7]byte(sum[:7])
}

// tokenText is the length of a token's text.
const tokenText = tokenSize / 3 * 4

// encode makes the text of a token for a log.
func (t token) encode(logID string) string {
	return string(t.append(make([]byte, 0, tokenText), logMark(logID)))
}

// append appends the text of a token for the log with the mark.
func (t token) append(dst []byte, mark [7]byte) []byte {
	b := make([]byte, 0, tokenSize)
	b = append(b, t.kind)
	b = append(b, mark[:]...)
	b = binary.BigEndian.AppendUint64(b, t.sequence)
	b = binary.BigEndian.AppendUint32(b, t.scope)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.AppendEncode(dst, b)
}

// cursors makes the cursors of one log, whose mark is worked out once. Any goroutine may call its methods.
type cursors struct {
	logID func() string
	known atomic.Pointer[logName]
}

// logName is the identity of a log and its mark.
type logName struct {
	id   string
	mark [7]byte
}

// mark returns the mark of the log, which is known as soon as the log was reached.
func (c *cursors) mark() [7]byte {
	id := c.logID()
	if known := c.known.Load(); known != nil && known.id == id {
		return known.mark
	}
	named := &logName{id: id, mark: logMark(id)}
	c.known.Store(named)
	return named.mark
}

// append appends the cursor that says "everything up to this sequence".
func (c *cursors) append(dst []byte, sequence uint64) []byte {
	return token{kind: cursorToken, sequence: sequence}.append(dst, c.mark())
}

// decodeToken reads a token of a kind that was made for this log.
func decodeToken(kind byte, logID, text string) (token, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != tokenSize || b[0] != kind ||
		binary.BigEndian.Uint32(b[tokenSize-4:]) != crc32.ChecksumIEEE(b[:tokenSize-4]) {
		return token{}, errCursorMalformed
	}
	if [7]byte(b[1:8]) != logMark(logID) {
		return token{}, errCursorForeign
	}
	return token{kind: kind, sequence: binary.BigEndian.Uint64(b[8:]), scope: binary.BigEndian.Uint32(b[16:])}, nil
}

// cursor is the text that says "everything up to this sequence".
func cursor(logID string, sequence uint64) string {
	return token{kind: cursorToken, sequence: sequence}.encode(logID)
}

// listScope binds page tokens to what is listed: filter, order, times.
func listScope(parts ...string) uint32 {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return binary.BigEndian.Uint32(sum[:4])
}
