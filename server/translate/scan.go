package translate

// kind is what a JSON value is.
type kind uint8

const (
	kindNull kind = iota + 1
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// What a string token holds beside plain ASCII; a string without a flag is its own bytes between the quotes.
const (
	flagEscaped uint8 = 1 << iota
	flagHigh
)

// none is the node that is not there.
const none int32 = -1

// node is one JSON value, or one key, by its place in the source. The nodes of a document lie in the order of the source, so the
// subtree of node i is i up to but not including next; in an object key and value take turns, and a key is always a single node.
type node struct {
	start, end int32 // bytes of the source, quotes and brackets included
	next       int32 // the node behind the subtree; while an array or object is open, its parent
	kind       kind
	flags      uint8
}

// document is a JSON text and where its values lie. It is not changed once parsed, until it is parsed anew.
type document struct {
	src   []byte
	nodes []node
}

// maxSource keeps offsets inside an int32; webhook bodies are a hundredth of it.
const maxSource = 1 << 30

// parse makes d the document of src: one JSON text by RFC 8259. It reports whether src is one. Nesting costs no stack, so any depth is taken.
func (d *document) parse(src []byte) bool {
	d.src, d.nodes = src, d.nodes[:0]
	if len(src) > maxSource {
		return false
	}
	// Webhook bodies have a value or key about every 12 bytes; fewer bytes per node only cost a growth.
	if room := len(src)/12 + 8; cap(d.nodes) < room {
		d.nodes = make([]node, 0, room)
	}
	parent := none
	i, ok := d.value(skipSpace(src, 0), &parent)
	for ok && parent != none {
		i, ok = d.follow(skipSpace(src, i), &parent)
	}
	return ok && skipSpace(src, i) == len(src)
}

// value reads the value at i: a scalar whole, of an array or object only what opens it. What is inside follows.
func (d *document) value(i int, parent *int32) (int, bool) {
	if i >= len(d.src) {
		return i, false
	}
	switch c := d.src[i]; {
	case c == '"':
		return d.str(i)
	case c == '{':
		d.open(i, kindObject, parent)
		return i + 1, true
	case c == '[':
		d.open(i, kindArray, parent)
		return i + 1, true
	case c == '-' || c-'0' <= 9:
		end, ok := scanNumber(d.src, i)
		d.leaf(i, end, kindNumber, 0)
		return end, ok
	case c == 't':
		return d.literal(i, "true", kindBool)
	case c == 'f':
		return d.literal(i, "false", kindBool)
	case c == 'n':
		return d.literal(i, "null", kindNull)
	}
	return i, false
}

// follow reads what stands next inside an array or object: the end or a value, with a comma before it unless it is the first.
func (d *document) follow(i int, parent *int32) (int, bool) {
	if i >= len(d.src) {
		return i, false
	}
	inObject, isFirst := d.nodes[*parent].kind == kindObject, int(*parent) == len(d.nodes)-1
	switch c := d.src[i]; {
	case c == '}' && inObject, c == ']' && !inObject:
		return d.shut(i, parent), true
	case isFirst:
	case c == ',':
		i = skipSpace(d.src, i+1)
	default:
		return i, false
	}
	if inObject {
		return d.member(i, parent)
	}
	return d.value(i, parent)
}

// member reads a key, its colon and what begins its value.
func (d *document) member(i int, parent *int32) (int, bool) {
	if i >= len(d.src) || d.src[i] != '"' {
		return i, false
	}
	i, ok := d.str(i)
	if !ok {
		return i, false
	}
	i = skipSpace(d.src, i)
	if i >= len(d.src) || d.src[i] != ':' {
		return i, false
	}
	return d.value(skipSpace(d.src, i+1), parent)
}

func (d *document) open(i int, k kind, parent *int32) {
	d.nodes = append(d.nodes, node{start: int32(i), next: *parent, kind: k})
	*parent = int32(len(d.nodes) - 1)
}

// shut ends the innermost open array or object, whose bracket stands at i.
func (d *document) shut(i int, parent *int32) int {
	n := &d.nodes[*parent]
	*parent, n.next, n.end = n.next, int32(len(d.nodes)), int32(i+1)
	return i + 1
}

func (d *document) leaf(start, end int, k kind, flags uint8) {
	d.nodes = append(d.nodes, node{start: int32(start), end: int32(end), next: int32(len(d.nodes) + 1), kind: k, flags: flags})
}

func (d *document) literal(i int, word string, k kind) (int, bool) {
	end := i + len(word)
	if end > len(d.src) || string(d.src[i:end]) != word {
		return i, false
	}
	d.leaf(i, end, k, 0)
	return end, true
}

// plain says of each byte whether it stands for itself in a string and says nothing about the rest.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads the string whose opening quote stands at i.
func (d *document) str(start int) (int, bool) {
	src, flags := d.src, uint8(0)
	for i := start + 1; i < len(src); {
		c := src[i]
		if plain[c] {
			i++
			continue
		}
		switch {
		case c == '"':
			d.leaf(start, i+1, kindString, flags)
			return i + 1, true
		case c >= 0x80:
			flags |= flagHigh
			i++
		case c == '\\':
			n := escapeLen(src[i:])
			if n == 0 {
				return i, false
			}
			flags |= flagEscaped
			i += n
		default:
			return i, false
		}
	}
	return start, false
}

// escapeLen is the length of the escape that s begins with, 0 if it is none.
func escapeLen(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(s[2:]); ok {
			return 6
		}
	}
	return 0
}

// scanNumber reads a number by JSON's grammar and returns where it ends.
func scanNumber(s []byte, i int) (int, bool) {
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch {
	case i >= len(s):
		return i, false
	case s[i] == '0':
		i++
	default:
		end := skipDigits(s, i)
		if end == i {
			return i, false
		}
		i = end
	}
	if i < len(s) && s[i] == '.' {
		end := skipDigits(s, i+1)
		if end == i+1 {
			return i, false
		}
		i = end
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		end := skipDigits(s, i)
		if end == i {
			return i, false
		}
		i = end
	}
	return i, true
}

func skipDigits(s []byte, i int) int {
	for i < len(s) && s[i]-'0' <= 9 {
		i++
	}
	return i
}

func skipSpace(s []byte, i int) int {
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c <= ' ' && (c == ' ' || c == '\n' || c == '\r' || c == '\t') }
