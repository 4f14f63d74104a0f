package drift

import (
	"slices"
	"strings"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
	"eventrelay/server/translate"
)

// objects is what event types with a payload of their own are about.
type objects map[string]bool

func knownObjects() objects {
	known := objects{}
	for _, t := range translate.Types() {
		known[objectOf(t.Pattern)] = true
	}
	return known
}

// objectOf is what of a type says which object it is of: the first two words, but the first alone for a provider that has none.
func objectOf(typ string) string {
	words := strings.SplitN(typ, ".", 3)
	if words[0] != "meta" || len(words) < 2 {
		return words[0]
	}
	return words[0] + "." + words[1]
}

// drift is what the schema does not know of an event, each thing once, and the event's metric label: the pattern of its type, or `unknown`.
func (known objects) drift(ev event) (label string, keys []key) {
	label, ok := translate.PatternOf(ev.typ)
	if ok && len(ev.unknownFields) == 0 { // as nearly all
		return label, nil
	}
	typ := ev.maskedType()
	switch {
	case ok:
	case known[objectOf(ev.typ)]:
		label, keys = "unknown", append(keys, key{kind: eventrelayv1.DriftKind_DRIFT_KIND_FIELD, typ: typ})
	default:
		label, keys = "unknown", append(keys, key{kind: eventrelayv1.DriftKind_DRIFT_KIND_OBJECT, typ: typ})
	}
	for _, told := range ev.unknownFields {
		path, word, isWord := strings.Cut(told, "=")
		k := key{kind: eventrelayv1.DriftKind_DRIFT_KIND_PATH, typ: typ, path: maskPath(path)}
		if isWord {
			k.kind, k.word = eventrelayv1.DriftKind_DRIFT_KIND_WORD, maskWord(word)
		}
		if !slices.Contains(keys, k) { // what is masked may look alike
			keys = append(keys, k)
		}
	}
	return label, keys
}
