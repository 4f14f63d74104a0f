package translate

import (
	"cmp"
	"slices"
)

// Bounds of `unknown_fields`: an event lists at most maxPaths paths and maxPathsBytes bytes of them; where there is more, the last
// entry is morePaths. A path over maxPath bytes is told by the nearest path above it, which covers all that is below.
const (
	maxPaths      = 1000
	maxPathsBytes = 64 << 10
	maxPath       = 1 << 10
	morePaths     = "..."
)

// maxToldWord is how long a word may be to be told behind its path; a longer one is no word but a text.
const maxToldWord = 256

// unknownPath is a path and where in the source what it names begins.
type unknownPath struct {
	pos  int32
	text string
}

// paths is where the walk through the JSON stands and which paths it has found to be unknown.
type paths struct {
	at    []byte // the path of the value being read
	below int    // how many more segments there are than fit into at
	found []unknownPath
	seen  map[string]struct{} // texts of found, once there are too many to compare with each
	bytes int
	full  bool
	muted bool // while set, nothing is added: what is read is told elsewhere in full
}

// reset begins another event, at the root of its raw.
func (p *paths) reset() {
	*p = paths{at: p.at[:0], found: p.found[:0]}
}

// push goes down to the member under key and returns what pop needs to come back.
func (p *paths) push(key []byte) int {
	mark := len(p.at)
	if p.below > 0 || mark+1+len(key) > maxPath {
		p.below++
		return -1
	}
	if mark > 0 {
		p.at = append(p.at, '.')
	}
	p.at = append(p.at, key...)
	return mark
}

// pushElements goes down to the elements of the array that the walk stands at.
func (p *paths) pushElements() int {
	mark := len(p.at)
	if p.below > 0 || mark+2 > maxPath {
		p.below++
		return -1
	}
	p.at = append(p.at, '[', ']')
	return mark
}

func (p *paths) pop(mark int) {
	if mark < 0 {
		p.below--
		return
	}
	p.at = p.at[:mark]
}

// add notes that what the walk stands at, which begins at pos, is unknown.
func (p *paths) add(pos int32) {
	if p.muted {
		return
	}
	p.insert(pos, p.at)
}

// addWord notes that the enum which the walk stands at does not know word.
func (p *paths) addWord(pos int32, word []byte) {
	if p.muted {
		return
	}
	if p.below > 0 || len(word) > maxToldWord {
		p.insert(pos, p.at)
		return
	}
	mark := len(p.at)
	p.at = append(append(p.at, '='), word...)
	p.insert(pos, p.at)
	p.at = p.at[:mark]
}

// few is up to how many paths are compared one by one, which is cheaper than a map.
const few = 8

func (p *paths) insert(pos int32, text []byte) {
	if p.full || p.has(text) {
		return
	}
	if len(p.found) == maxPaths-1 || p.bytes+len(text) > maxPathsBytes {
		p.full = true
		return
	}
	u := unknownPath{pos: pos, text: string(text)}
	p.found = append(p.found, u)
	p.bytes += len(u.text)
	if len(p.found) < few {
		return
	}
	if p.seen == nil {
		p.seen = make(map[string]struct{}, 2*few)
		for _, f := range p.found {
			p.seen[f.text] = struct{}{}
		}
	}
	p.seen[u.text] = struct{}{}
}

func (p *paths) has(text []byte) bool {
	if p.seen != nil {
		_, ok := p.seen[string(text)]
		return ok
	}
	for _, f := range p.found {
		if f.text == string(text) {
			return true
		}
	}
	return false
}

// merge adds what another walk over a part of the same raw has found.
func (p *paths) merge(found []unknownPath, full bool) {
	for _, f := range found {
		p.insert(f.pos, []byte(f.text))
	}
	p.full = p.full || full
}

// inOrder is what was found, in the order of the source.
func (p *paths) inOrder() []unknownPath {
	slices.SortStableFunc(p.found, func(a, b unknownPath) int { return cmp.Compare(a.pos, b.pos) })
	return p.found
}
