package fastpath

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// endOfHead is the end of the last line, and an empty one.
var endOfHead = []byte("\r\n\r\n")

// method is what a plain head begins with.
const method = "POST "

// mayBePlain reports whether what has come of a head is the beginning of a plain one, as far as the method says.
func mayBePlain(beginning []byte) bool {
	n := min(len(beginning), len(method))
	return string(beginning[:n]) == method[:n]
}

// parse returns the request with a plain head, but for its body. It reports false for any other, right or wrong.
//
// A plain head is a POST in HTTP/1.1 to a path of letters, digits and `-._~/`, with or without a query. It has lines of printable ASCII that end with CR LF, names of letters,
// digits and hyphens, one Host and one Content-Length, and nothing that has net/http do more (Connection other than keep-alive, Expect, Pragma, Transfer-Encoding). Where it is
// plain the result is what net/http makes of it.
func parse(head []byte) (*http.Request, bool) {
	text, ok := strings.CutSuffix(string(head), string(endOfHead)) // one copy, of which all strings are parts
	if !ok {
		return nil, false
	}
	line, fields, _ := strings.Cut(text, "\r\n")
	target, ok := strings.CutPrefix(line, method)
	if !ok {
		return nil, false
	}
	if target, ok = strings.CutSuffix(target, " HTTP/1.1"); !ok {
		return nil, false
	}
	path, query, asks := strings.Cut(target, "?")
	if !isPath(path) || asks && !isQuery(query) {
		return nil, false
	}
	r := &http.Request{
		Method: http.MethodPost, RequestURI: target, URL: &url.URL{Path: path, RawQuery: query},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
	}
	return r, parseFields(r, fields)
}

// parseFields sets what the lines of a head say, or reports false.
func parseFields(r *http.Request, fields string) bool {
	n := 1 + strings.Count(fields, "\r\n")
	r.Header = make(http.Header, n)
	values := make([]string, 0, n)
	for more := true; more; {
		var line string
		line, fields, more = strings.Cut(fields, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isName(name) || !isPrintable(value) {
			return false
		}
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " ")
		switch name {
		case "Host":
			if r.Host != "" || !isHost(value) {
				return false
			}
			r.Host = value
			continue
		case "Content-Length":
			length, err := strconv.ParseUint(value, 10, 63)
			if r.ContentLength >= 0 || err != nil {
				return false
			}
			r.ContentLength = int64(length)
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Expect", "Pragma", "Transfer-Encoding":
			return false
		}
		if before := r.Header[name]; before != nil {
			r.Header[name] = append(before, value)
			continue
		}
		values = append(values, value)
		r.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return r.Host != "" && r.ContentLength >= 0
}

func isPath(s string) bool {
	return strings.HasPrefix(s, "/") && all(s, func(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("-._~/", c) >= 0 })
}

// isQuery reports whether s can stand behind a question mark as it is. None at all behind one is a case of its own.
func isQuery(s string) bool {
	return s != "" && all(s, func(c byte) bool { return ' ' < c && c < 0x7f })
}

func isName(s string) bool {
	return s != "" && all(s, func(c byte) bool { return isAlphanumeric(c) || c == '-' })
}

func isPrintable(s string) bool {
	return all(s, func(c byte) bool { return ' ' <= c && c < 0x7f })
}

func isHost(s string) bool {
	return s != "" && all(s, func(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("-._:[]", c) >= 0 })
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}
