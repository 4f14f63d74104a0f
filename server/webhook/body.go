package webhook

import (
	"errors"
	"io"
)

const (
	// What is allocated, in bytes, on the word of somebody who has not sent anything yet. Nearly all notifications are of a few
	// kilobytes and are read into a buffer of exactly their size.
	trustedSize = 64 << 10
	// The first buffer for a body whose size is not declared.
	firstSize = 4 << 10
)

// Why a body is not taken; any other error of readBody is the reader's.
var (
	errTooLarge = errors.New("body over the limit")
	errBusy     = errors.New("too many large bodies at once")
	errLonger   = errors.New("body longer than declared")
)

// readBody reads a body of up to limit bytes whole, or returns an error. declared is its size as the sender says, or -1; the
// caller has refused what is declared as over the limit.
//
// The buffer is allocated once for a declared size of up to trustedSize. Beyond that it starts with trustedSize, and the rest
// is allocated when as much has come and reserve has agreed to the size that the whole may have.
func readBody(from io.Reader, declared, limit int64, reserve func(bytes int64) bool) ([]byte, error) {
	whole := limit
	size := min(firstSize, limit)
	if declared >= 0 {
		whole = declared
		size = min(declared, trustedSize)
	}
	body := make([]byte, 0, size)
	reserved := false
	for {
		if int64(len(body)) == whole {
			return body, readEnd(from, declared)
		}
		if len(body) == cap(body) {
			size = min(2*int64(cap(body)), whole)
			if declared >= 0 {
				size = whole
			}
			if size > trustedSize && !reserved {
				if !reserve(whole) {
					return nil, errBusy
				}
				reserved = true
			}
			body = append(make([]byte, 0, size), body...)
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return nil, err
		case declared >= 0 && int64(len(body)) < declared:
			return nil, io.ErrUnexpectedEOF
		default:
			return body, nil
		}
	}
}

// readEnd makes sure that nothing follows a body that has as many bytes as it may have.
func readEnd(from io.Reader, declared int64) error {
	var more [1]byte
	switch n, err := io.ReadFull(from, more[:]); {
	case errors.Is(err, io.EOF):
		return nil
	case n == 0:
		return err
	case declared >= 0:
		return errLonger
	default:
		return errTooLarge
	}
}
