package webhook

// maxDepth is how deep arrays and objects may lie in one another: as deep as encoding/json reads, so that nobody behind is given
// what it cannot read. No provider comes near it.
const maxDepth = 10_000

// validJSON reports whether data is exactly one JSON value, just as json.Valid does. It is there because that question is the
// dearest part of receiving a notification after the sync, several times the HMAC, and json.Valid asks it by a function call
// a byte.
func validJSON(data []byte) bool {
	s := scanner{data: data}
	if !s.value(0) {
		return false
	}
	s.peek()
	return s.at == len(s.data)
}

// A scanner goes through JSON text. Its methods stand at the first byte of what they are named for, and move behind it and
// return true, or return false where that is not what is there.
type scanner struct {
	data []byte
	at   int
}

// peek skips white space and returns the byte after it, or 0 at the end: no JSON has a 0 there.
func (s *scanner) peek() byte {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// value may have white space before it, and lies in depth arrays and objects.
func (s *scanner) value(depth int) bool {
	switch s.peek() {
	case '"':
		return s.text()
	case '{':
		return s.list('}', depth+1)
	case '[':
		return s.list(']', depth+1)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

// list is an array or an object, by the byte that ends it.
func (s *scanner) list(end byte, depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.at++
	if s.peek() == end {
		s.at++
		return true
	}
	for {
		if end == '}' {
			if s.peek() != '"' || !s.text() || s.peek() != ':' {
				return false
			}
			s.at++
		}
		if !s.value(depth) {
			return false
		}
		next := s.peek()
		s.at++
		if next != ',' {
			return next == end
		}
	}
}

func (s *scanner) text() bool {
	data := s.data
	for i := s.at + 1; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			s.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			n := escape(data[i+1:])
			if n == 0 {
				return false
			}
			i += n
		}
	}
	return false
}

// escape returns the length of the escape that data starts with, behind its backslash; 0 if it is none.
func escape(data []byte) int {
	if len(data) == 0 {
		return 0
	}
	switch data[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(data) > 4 && hexDigit(data[1]) && hexDigit(data[2]) && hexDigit(data[3]) && hexDigit(data[4]) {
			return 5
		}
	}
	return 0
}

func hexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) number() bool {
	s.skip('-')
	if !s.skip('0') && !s.digits() {
		return false
	}
	if s.skip('.') && !s.digits() {
		return false
	}
	if s.skip('e') || s.skip('E') {
		if !s.skip('+') {
			s.skip('-')
		}
		return s.digits()
	}
	return true
}

// skip moves over c if it is there.
func (s *scanner) skip(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// digits moves over one digit or more.
func (s *scanner) digits() bool {
	begin := s.at
	for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
		s.at++
	}
	return s.at > begin
}
