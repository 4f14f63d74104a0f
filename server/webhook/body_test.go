package webhook

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// greedy is a body that records the largest buffer it was offered. It hands out what it has, then what comes after.
type greedy struct {
	data    []byte
	after   error
	offered int
}

func (g *greedy) Read(p []byte) (int, error) {
	g.offered = max(g.offered, len(p))
	if len(g.data) == 0 {
		return 0, g.after
	}
	n := copy(p, g.data)
	g.data = g.data[n:]
	return n, nil
}

func yes(int64) bool { return true }

func TestADeclaredSizeIsNotBelievedBeforeAnythingHasCome(t *testing.T) {
	const limit = 4 << 20
	for _, declared := range []int64{limit, -1} {
		for _, sent := range []int{0, 1, trustedSize - 1} {
			from := &greedy{data: make([]byte, sent), after: io.ErrUnexpectedEOF}
			_, err := readBody(from, declared, limit, func(int64) bool {
				t.Errorf("declared %d, sent %d: memory is reserved", declared, sent)
				return true
			})
			if !errors.Is(err, io.ErrUnexpectedEOF) || from.offered > trustedSize {
				t.Errorf("declared %d, sent %d: %v, with a buffer of %d", declared, sent, err, from.offered)
			}
		}
	}
}

func TestAnOrdinaryBodyIsReadIntoOneBufferOfItsSize(t *testing.T) {
	for _, size := range []int{1, 2000, trustedSize} {
		data := bytes.Repeat([]byte("x"), size)
		body, err := readBody(bytes.NewReader(data), int64(size), 4<<20, yes)
		if err != nil || !bytes.Equal(body, data) || cap(body) != size {
			t.Errorf("%d bytes: %d in a buffer of %d, %v", size, len(body), cap(body), err)
		}
	}
	data := bytes.Repeat([]byte("x"), 2000)
	from := bytes.NewReader(data)
	allocations := testing.AllocsPerRun(100, func() {
		from.Reset(data)
		if _, err := readBody(from, int64(len(data)), 4<<20, yes); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 2 { // the buffer, and the byte that looks for an end
		t.Errorf("%v allocations", allocations)
	}
}

func TestALargeBodyIsReservedOnceAndAsAWhole(t *testing.T) {
	const limit = 1 << 20
	for _, c := range []struct{ declared, want int64 }{{trustedSize + 1, trustedSize + 1}, {limit, limit}, {-1, limit}} {
		var reserved []int64
		size := max(c.declared, trustedSize+1)
		body, err := readBody(&greedy{data: make([]byte, size), after: io.EOF}, c.declared, limit, func(n int64) bool {
			reserved = append(reserved, n)
			return true
		})
		if err != nil || int64(len(body)) != size || len(reserved) != 1 || reserved[0] != c.want {
			t.Errorf("declared %d: %d bytes, %v, reserved %v", c.declared, len(body), err, reserved)
		}
		_, err = readBody(&greedy{data: make([]byte, size), after: io.EOF}, c.declared, limit, func(int64) bool { return false })
		if !errors.Is(err, errBusy) {
			t.Errorf("declared %d, nothing to reserve: %v", c.declared, err)
		}
	}
}

func TestABodyThatIsNotAsDeclaredIsAnError(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name            string
		sent            int
		declared, limit int64
		after, want     error
	}{
		{"whole", 10, 10, 10, io.EOF, nil},
		{"nothing", 0, 0, 10, io.EOF, nil},
		{"not declared", 10, -1, 10, io.EOF, nil},
		{"not declared, nothing", 0, -1, 10, io.EOF, nil},
		{"short", 9, 10, 10, io.EOF, io.ErrUnexpectedEOF},
		{"long", 11, 10, 20, io.EOF, errLonger},
		{"something instead of nothing", 1, 0, 20, io.EOF, errLonger},
		{"not declared, over the limit", 11, -1, 10, io.EOF, errTooLarge},
		{"broken in between", 5, 10, 10, broken, broken},
		{"broken at the end", 10, 10, 10, broken, broken},
		{"not declared, cut off", 5, -1, 10, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
		{"not declared, cut off at the limit", 10, -1, 10, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
	} {
		for form, wrap := range map[string]func(io.Reader) io.Reader{
			"": func(r io.Reader) io.Reader { return r }, "one byte at a time": iotest.OneByteReader, "error with the data": iotest.DataErrReader,
		} {
			body, err := readBody(wrap(&greedy{data: make([]byte, c.sent), after: c.after}), c.declared, c.limit, yes)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || err == nil && len(body) != c.sent {
				t.Errorf("%s %s: %d bytes, %v; want %v", c.name, form, len(body), err, c.want)
			}
		}
	}
}
