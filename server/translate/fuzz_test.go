package translate

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

func seed(f *testing.F) {
	paths, _ := filepath.Glob("testdata/cases/*.json")
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(textBody))
	f.Add(batchBody(6))
	for _, s := range []string{"", " ", "{}", "-", "-0", "01", "1.", "1e", "1e+5", `"\u12"`, `"\x"`, "[1,]", `{"a":1,}`, "tru", "\x00", "[[", `{"a"}`, "1 2"} {
		f.Add([]byte(s))
	}
}

func FuzzTranslate(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		sent := bytes.Clone(body)
		events := Translate(notify(body))
		if !bytes.Equal(body, sent) {
			t.Fatal("the body was changed")
		}
		if len(events) == 0 {
			t.Fatal("no event")
		}
		valid := json.Valid(body)
		for i, again := range Translate(notify(body)) {
			if again.ID != events[i].ID || !bytes.Equal(again.Data, events[i].Data) {
				t.Fatal("another time another event")
			}
		}
		for _, ev := range events {
			// Unmarshal refuses strings that are not UTF-8.
			msg := &eventrelayv1.Event{}
			if err := proto.Unmarshal(ev.Data, msg); err != nil {
				t.Fatal(err)
			}
			if !idForm.MatchString(ev.ID) || ev.OrderingKey == "" || msg.GetPayload() == nil {
				t.Fatalf("event %v", msg)
			}
			if len(msg.GetRaw()) == 0 && len(body) > 0 || valid && !json.Valid(msg.GetRaw()) || len(head(t, ev)) > maxHead {
				t.Fatalf("raw %q, %d bytes before it", msg.GetRaw(), len(head(t, ev)))
			}
			again, err := proto.Marshal(msg)
			if err != nil || len(again) != len(ev.Data) {
				t.Fatalf("written in %d bytes, by the library in %d (%v)", len(ev.Data), len(again), err)
			}
		}
	})
}

func parsed(body []byte) (*document, bool) {
	doc := &document{}
	return doc, doc.parse(body)
}

// What counts as JSON here is what counts as JSON where the webhook was checked.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, ok := parsed(body)
		// encoding/json refuses what is nested deeper than 10000; parse does not.
		if want := json.Valid(body); ok != want && bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) < 10000 {
			t.Fatalf("parsed %t, valid %t", ok, want)
		}
		if !ok {
			return
		}
		for i, n := range doc.nodes {
			if n.start >= n.end || int(n.next) <= i || int(n.next) > len(doc.nodes) {
				t.Fatalf("node %d is %+v", i, n)
			}
			if n.kind == kindString {
				var want string
				if err := json.Unmarshal(doc.raw(int32(i)), &want); err != nil || string(doc.text(int32(i))) != want {
					t.Fatalf("%q reads %q, want %q (%v)", doc.raw(int32(i)), doc.text(int32(i)), want, err)
				}
			}
		}
	})
}

func canonical(body []byte) []byte {
	doc, ok := parsed(body)
	if !ok {
		return nil
	}
	return (&canonizer{doc: doc}).append(nil, 0, 0)
}

func FuzzCanonical(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		want := canonical(body)
		if want == nil {
			return
		}
		if got := canonical(want); !bytes.Equal(got, want) {
			t.Fatalf("canonical form of %q is %q", want, got)
		}
		if !json.Valid(body) || !utf8.Valid(body) || hasLoneSurrogate(body) {
			return
		}
		v, err := decodeNext(decoderOf(body))
		if err != nil {
			return
		}
		for _, w := range []writer{{}, {escapes: true}, {space: " \t"}} {
			if got := canonical(w.bytes(v)); !bytes.Equal(got, want) {
				t.Fatalf("%q, canonical %q; written anew canonical %q", body, want, got)
			}
		}
	})
}

func decoderOf(body []byte) *json.Decoder {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	return dec
}

// hasLoneSurrogate says whether decoding would turn an escape into U+FFFD, which the canonical form does not.
func hasLoneSurrogate(body []byte) bool {
	doc, _ := parsed(body)
	return slices.ContainsFunc(doc.nodes, func(n node) bool {
		return n.flags&flagEscaped != 0 && bytes.ContainsRune(appendText(nil, doc.src[n.start+1:n.end-1]), utf8.RuneError)
	})
}
