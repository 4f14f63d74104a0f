package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// ordered is a JSON object with its members in order, twins included.
type ordered []member

type member struct {
	key   string
	value any
}

// decode reads JSON without losing order, twins or digits; values are ordered, []any, string, json.Number, bool or nil.
func decode(t testing.TB, body []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	v, err := decodeNext(dec)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

func decodeNext(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := ordered{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := decodeNext(dec)
			if err != nil {
				return nil, err
			}
			object = append(object, member{key.(string), value})
		}
		_, err := dec.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := decodeNext(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := dec.Token()
		return list, err
	}
	return token, nil
}

// writer writes decoded JSON: in order or shuffled, with or without white space, escaped as Meta does or not.
type writer struct {
	random  *rand.Rand // shuffles the keys of objects if set
	escapes bool
	space   string
}

func (w writer) append(out *bytes.Buffer, v any) {
	switch v := v.(type) {
	case ordered:
		if w.random != nil {
			v = slices.Clone(v)
			w.random.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
		}
		out.WriteString("{" + w.space)
		for i, m := range v {
			if i > 0 {
				out.WriteString("," + w.space)
			}
			w.append(out, m.key)
			out.WriteString(w.space + ":" + w.space)
			w.append(out, m.value)
		}
		out.WriteString(w.space + "}")
	case []any:
		out.WriteString("[" + w.space)
		for i, e := range v {
			if i > 0 {
				out.WriteString("," + w.space)
			}
			w.append(out, e)
		}
		out.WriteString(w.space + "]")
	case string:
		w.str(out, v)
	case json.Number:
		out.WriteString(v.String())
	case nil:
		out.WriteString("null")
	default:
		fmt.Fprint(out, v)
	}
}

func (w writer) str(out *bytes.Buffer, s string) {
	if !w.escapes {
		b := &bytes.Buffer{}
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(s)
		out.Write(bytes.TrimSpace(b.Bytes()))
		return
	}
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '/':
			out.WriteString(`\/`)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(out, `\u%04X\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		case r < 0x20, r > 0x7e, r == '"', r == '\\', r == '<', r == '@':
			fmt.Fprintf(out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
}

func (w writer) bytes(v any) []byte {
	var out bytes.Buffer
	w.append(&out, v)
	return out.Bytes()
}

func lookup(v any, key string) any {
	object, _ := v.(ordered)
	for _, m := range object {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// bodies are the cases of this package that are JSON, those of what is documented, and the sample bodies of EVENTRELAY_CORPUS if it is set.
func bodies(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	documented, err := os.ReadFile("testdata/documented.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range bytes.Split(documented, []byte("\n")) {
		if len(line) > 0 && (line[0] == '{' || line[0] == '[') {
			all[fmt.Sprintf("testdata/documented.txt:%d", i+1)] = line
		}
	}
	patterns := []string{"testdata/cases/*.json"}
	if corpus := os.Getenv("EVENTRELAY_CORPUS"); corpus != "" {
		patterns = append(patterns, filepath.Join(corpus, "meta/*.json"), filepath.Join(corpus, "dialog360/*.json"))
	}
	for _, pattern := range patterns {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if json.Valid(body) && utf8.Valid(body) {
				all[path] = body
			}
		}
	}
	return all
}

func ids(events []decoded) []string {
	var all []string
	for _, ev := range events {
		all = append(all, ev.ID)
	}
	slices.Sort(all)
	return all
}

func TestAnIDDoesNotDependOnHowTheBodyIsWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for path, body := range bodies(t) {
		want := ids(translated(t, string(body)))
		v := decode(t, body)
		for i, w := range []writer{{}, {escapes: true}, {space: " \n"}, {random: random}, {random: random, escapes: true, space: "\t"}} {
			again := w.bytes(v)
			if got := ids(translated(t, string(again))); !slices.Equal(got, want) {
				t.Errorf("%s, written anew as %d: ids %v, want %v\n%s", path, i, got, want, again)
			}
		}
	}
}

// One delivery may hold what another spreads over several: each event of a change, put into an envelope of its own with nothing but its
// raw, has the same id, and so has the whole entry beside others.
func TestAnIDDoesNotDependOnTheBatch(t *testing.T) {
	w := writer{}
	for path, body := range bodies(t) {
		envelope := decode(t, body)
		entries, _ := lookup(envelope, "entry").([]any)
		var shells [][]byte
		whole := translated(t, string(body))
		if whole[0].msg.GetField() == "" {
			continue
		}
		for _, entry := range entries {
			object, isObject := entry.(ordered)
			changes, _ := lookup(entry, "changes").([]any)
			if !isObject || len(changes) == 0 {
				continue
			}
			shell := ordered{{"object", lookup(envelope, "object")}}
			var rest ordered
			for _, m := range object {
				if m.key == "id" || m.key == "time" {
					rest = append(rest, m)
				}
			}
			for _, change := range changes {
				alone := w.bytes(append(slices.Clone(shell), member{"entry", []any{append(slices.Clone(rest), member{"changes", []any{change}})}}))
				for _, ev := range translated(t, string(alone)) {
					one := string(w.bytes(append(slices.Clone(rest), member{"changes", []any{json.Number(ev.msg.GetRaw())}})))
					shells = append(shells, []byte(one))
					got := only(t, string(w.bytes(append(slices.Clone(shell), member{"entry", json.Number("[" + one + "]")}))))
					if !slices.Contains(ids(whole), ev.ID) || got.ID != ev.ID {
						t.Errorf("%s: %s alone is %s, want %s, one of %v", path, ev.msg.GetRaw(), got.ID, ev.ID, ids(whole))
					}
				}
			}
		}
		if len(shells) > 0 {
			object := w.bytes(lookup(envelope, "object"))
			all := fmt.Sprintf(`{"entry":[%s],"object":%s}`, bytes.Join(shells, []byte(",")), object)
			if got := translated(t, all); len(got) != len(shells) {
				t.Errorf("%s: %d events of %d entries", path, len(got), len(shells))
			}
		}
	}
}

// items are the elements of the lists that are split, as canonical JSON.
func items(v any, field string) []string {
	var all []string
	object, ok := v.(ordered)
	if !ok {
		return nil
	}
	for _, m := range object {
		list, isList := m.value.([]any)
		_, split := listOf(field, []byte(m.key))
		switch {
		case field == "standby" && m.key == "standby":
			all = append(all, items(m.value, field)...)
		case isList && split && !isWhole(field) && (m.key != "errors" || len(object) > 0):
			for _, e := range list {
				all = append(all, m.key+string(writer{}.bytes(e)))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestTheRawsOfACorpusBodyHoldItsItems(t *testing.T) {
	corpus := os.Getenv("EVENTRELAY_CORPUS")
	if corpus == "" {
		t.Skip("EVENTRELAY_CORPUS is not set: it names the folder of sample bodies, with meta/ and dialog360/")
	}
	for path, body := range bodies(t) {
		events := translated(t, string(body))
		seen := map[string]string{}
		for _, ev := range events {
			raw := ev.msg.GetRaw()
			if !json.Valid(raw) {
				t.Errorf("%s: raw of %s is not JSON: %s", path, ev.Type, raw)
			}
			if other, ok := seen[ev.ID]; ok && other != string(raw) {
				t.Errorf("%s: %s and %s have the id %s", path, raw, other, ev.ID)
			}
			seen[ev.ID] = string(raw)
		}
		entries, _ := lookup(decode(t, body), "entry").([]any)
		for _, entry := range entries {
			changes, _ := lookup(entry, "changes").([]any)
			for _, change := range changes {
				field, isSent := lookup(change, "field").(string)
				if !isSent {
					field = "messages"
				}
				sent := items(lookup(change, "value"), field)
				var held []string
				for _, ev := range events {
					if ev.msg.GetField() == field {
						held = append(held, items(lookup(decode(t, ev.msg.GetRaw()), "value"), field)...)
					}
				}
				for _, item := range sent {
					if !slices.Contains(held, item) {
						t.Errorf("%s: no raw holds %s", path, item)
					}
				}
				if len(sent) < 2 && len(changes) == 1 && len(events) == 1 && !bytes.Contains(body, events[0].msg.GetRaw()) {
					t.Errorf("%s: raw is no part of the body: %s", path, events[0].msg.GetRaw())
				}
			}
		}
	}
}

// A body of Meta's own samples holds a known object and field: only those that are broken on purpose are of no type at all.
func TestNearlyEveryCorpusBodyHasAShape(t *testing.T) {
	corpus := os.Getenv("EVENTRELAY_CORPUS")
	if corpus == "" {
		t.Skip("EVENTRELAY_CORPUS is not set: it names the folder of sample bodies, with meta/ and dialog360/")
	}
	for path, body := range bodies(t) {
		for _, ev := range translated(t, string(body)) {
			if strings.HasPrefix(path, corpus) && strings.HasSuffix(ev.Type, "unknown") && !strings.Contains(path, "none") && !strings.Contains(path, "bare") {
				t.Errorf("%s makes an event of type %s", path, ev.Type)
			}
		}
	}
}
