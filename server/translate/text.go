package translate

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// raw is the node as it stands in the source.
func (d *document) raw(n int32) []byte {
	return d.src[d.nodes[n].start:d.nodes[n].end]
}

func (d *document) kind(n int32) kind {
	if n == none {
		return kindNull
	}
	return d.nodes[n].kind
}

// text is a string or key decoded, always valid UTF-8: a part of the source where it can be, else a copy.
func (d *document) text(n int32) []byte {
	t := &d.nodes[n]
	s := d.src[t.start+1 : t.end-1]
	if t.flags == 0 || t.flags == flagHigh && utf8.Valid(s) {
		return s
	}
	return appendText(make([]byte, 0, len(s)+2*utf8.UTFMax), s)
}

// scalar is a string decoded, or a number or bool as sent, digit for digit; nil for anything else.
func (d *document) scalar(n int32) []byte {
	switch d.kind(n) {
	case kindString:
		return d.text(n)
	case kindNumber, kindBool:
		return d.raw(n)
	default:
		return nil
	}
}

// isScalar says whether the node is a string, number or bool.
func (d *document) isScalar(n int32) bool {
	k := d.kind(n)
	return k == kindString || k == kindNumber || k == kindBool
}

// isEmpty says whether the node holds nothing at all: null, "", [] or {}.
func (d *document) isEmpty(n int32) bool {
	switch d.kind(n) {
	case kindNull:
		return true
	case kindString:
		return d.nodes[n].end-d.nodes[n].start == 2
	case kindArray, kindObject:
		return d.nodes[n].next == n+1
	default:
		return false
	}
}

// get is the first value under key that is not null, or none; none too where n is no object.
func (d *document) get(n int32, key string) int32 {
	if n == none || d.nodes[n].kind != kindObject {
		return none
	}
	for k := n + 1; k < d.nodes[n].next; k = d.nodes[k+1].next {
		if d.nodes[k+1].kind != kindNull && d.isKey(k, key) {
			return k + 1
		}
	}
	return none
}

// isKey says whether key node k reads key.
func (d *document) isKey(k int32, key string) bool {
	t := &d.nodes[k]
	if t.flags&flagEscaped == 0 {
		return int(t.end-t.start)-2 == len(key) && string(d.src[t.start+1:t.end-1]) == key
	}
	return string(d.text(k)) == key
}

// hex4 reads four hexadecimal digits.
func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range s[:4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case (c|0x20)-'a' <= 5:
			c = (c | 0x20) - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape reads the escape that s begins with: its rune and its length. Two escapes that make a surrogate pair are one rune; a
// surrogate that stands alone is returned as it is, which is no valid rune.
func unescape(s []byte) (rune, int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, _ := hex4(s[2:])
		if utf16.IsSurrogate(r) && len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
			low, _ := hex4(s[8:])
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return r, 6
	default:
		return rune(s[1]), 2
	}
}

// appendText appends what the inside of a string token says. Bytes that are no UTF-8 and surrogates that stand alone become U+FFFD.
func appendText(dst, s []byte) []byte {
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			i = len(s)
		}
		dst = appendValid(dst, s[:i])
		if s = s[i:]; len(s) == 0 {
			break
		}
		r, n := unescape(s)
		dst = utf8.AppendRune(dst, r)
		s = s[n:]
	}
	return dst
}

// appendValid appends s with every byte that is no UTF-8 replaced by U+FFFD.
func appendValid(dst, s []byte) []byte {
	if utf8.Valid(s) {
		return append(dst, s...)
	}
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		dst = utf8.AppendRune(dst, r)
		s = s[n:]
	}
	return dst
}

// normalWord appends a word in capitals, each character that is no letter or digit of ASCII as `_`: the form of enum value names.
func normalWord(dst, s []byte) []byte {
	for len(s) > 0 {
		c, n := s[0], 1
		switch {
		case c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		case c >= utf8.RuneSelf:
			_, n = utf8.DecodeRune(s)
			c = '_'
		case (c < 'A' || c > 'Z') && c-'0' > 9:
			c = '_'
		}
		dst = append(dst, c)
		s = s[n:]
	}
	return dst
}
