package translate

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// canonizer writes JSON in one form, so that two texts that say the same are the same bytes: no white space, keys sorted, strings
// with the fewest escapes, numbers as decimal digits and exponent. What a provider makes anew at each delivery is left out: the `url` of
// a media object. Nothing else that tells two texts apart is: bytes that are no UTF-8, lone surrogates and a key's second value stay.
type canonizer struct {
	doc     *document
	members []canonMember // scratch: the members of the objects being written
	keys    []byte        // scratch: keys that had escapes
}

type canonMember struct {
	key   []byte
	value int32
}

// maxCanonDepth bounds the recursion; what lies deeper is written in the order and form in which it was sent, without white space.
const maxCanonDepth = 500

func (c *canonizer) append(dst []byte, n int32, depth int) []byte {
	switch t := &c.doc.nodes[n]; t.kind {
	case kindString:
		return c.str(dst, t)
	case kindNumber:
		return appendNumber(dst, c.doc.raw(n))
	case kindArray, kindObject:
		if depth > maxCanonDepth {
			return appendCompact(dst, c.doc.raw(n))
		}
		if t.kind == kindArray {
			return c.array(dst, n, depth)
		}
		return c.object(dst, n, depth, none)
	default:
		return append(dst, c.doc.raw(n)...)
	}
}

func (c *canonizer) array(dst []byte, n int32, depth int) []byte {
	dst = append(dst, '[')
	for v := n + 1; v < c.doc.nodes[n].next; v = c.doc.nodes[v].next {
		if v > n+1 {
			dst = append(dst, ',')
		}
		dst = c.append(dst, v, depth+1)
	}
	return append(dst, ']')
}

// object writes an object without the member whose value is without.
func (c *canonizer) object(dst []byte, n int32, depth int, without int32) []byte {
	base, keys := len(c.members), len(c.keys)
	var id, media bool
	for k := n + 1; k < c.doc.nodes[n].next; k = c.doc.nodes[k+1].next {
		if k+1 == without {
			continue
		}
		m := canonMember{key: c.key(k), value: k + 1}
		id = id || isQuoted(m.key, "id")
		media = media || isQuoted(m.key, "mime_type") || isQuoted(m.key, "sha256")
		c.members = append(c.members, m)
	}
	c.sort(c.members[base:])
	dst = append(dst, '{')
	first := true
	for i := base; i < len(c.members); i++ {
		m := c.members[i]
		if id && media && isQuoted(m.key, "url") {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(dst, m.key...), ':')
		dst = c.append(dst, m.value, depth+1)
	}
	c.members, c.keys = c.members[:base], c.keys[:keys]
	return append(dst, '}')
}

// sort orders members by key; members of one key stay in the order in which they were sent.
func (c *canonizer) sort(members []canonMember) {
	// Insertion is quickest for the handful of keys that objects have; a large object must not cost the square of its keys.
	if len(members) > 32 {
		slices.SortStableFunc(members, func(a, b canonMember) int { return bytes.Compare(a.key, b.key) })
		return
	}
	for i := 1; i < len(members); i++ {
		for j := i; j > 0 && bytes.Compare(members[j].key, members[j-1].key) < 0; j-- {
			members[j], members[j-1] = members[j-1], members[j]
		}
	}
}

// key is a key in canonical form, quotes included.
func (c *canonizer) key(k int32) []byte {
	t := &c.doc.nodes[k]
	if t.flags&flagEscaped == 0 {
		return c.doc.raw(k)
	}
	start := len(c.keys)
	c.keys = c.str(c.keys, t)
	return c.keys[start:len(c.keys):len(c.keys)]
}

func isQuoted(key []byte, name string) bool {
	return len(key) == len(name)+2 && string(key[1:len(key)-1]) == name
}

// str writes a string: unless it has escapes, it is canonical as it is.
func (c *canonizer) str(dst []byte, t *node) []byte {
	s := c.doc.src[t.start:t.end]
	if t.flags&flagEscaped == 0 {
		return append(dst, s...)
	}
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		r, n := unescape(s[i:])
		dst = appendEscaped(dst, r)
		s = s[i+n:]
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// appendEscaped writes a rune as itself where JSON allows it, so that it is the same however it was escaped.
func appendEscaped(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r < 0x20 || !utf8.ValidRune(r):
		return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
	default:
		return utf8.AppendRune(dst, r)
	}
}

// appendNumber writes a number so that 1.0, 1 and 10e-1 are the same. One whose exponent is beyond reckoning stays as sent.
func appendNumber(dst, s []byte) []byte {
	var scratch [64]byte
	d, ok := parseDecimal(scratch[:], s)
	if !ok {
		return append(dst, s...)
	}
	return d.append(dst)
}

// appendCompact writes JSON without the white space between its tokens.
func appendCompact(dst, s []byte) []byte {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			dst = append(dst, c)
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && isSpace(c):
			continue
		}
		dst = append(dst, s[i])
	}
	return dst
}
