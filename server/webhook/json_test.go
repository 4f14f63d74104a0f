package webhook

import (
	"encoding/json"
	"strings"
	"testing"
)

var jsonTexts = []string{
	``, ` `, `null`, `true`, `false`, `nul`, `nulll`, `True`, `"`, `""`, `"a`, `"\`, `"\"`, `"\u12`, `"\u12G4"`, `"\u00e4\/\\\b\f\n\r\t"`, `"\x"`, "\"\x1f\"", "\"\x7f\x80\xff\"", "\"\x00\"",
	`0`, `-0`, `-`, `00`, `01`, `1.`, `.1`, `1.0`, `1e`, `1e+`, `1E-7`, `1e+07`, `+1`, `1 2`, `-a`, `0x1`, `123456789012345678901234567890`,
	`[]`, `[`, `]`, `[ ]`, `[,]`, `[1,]`, `[1 2]`, `[1}`, `[1,2`, ` [ 1 , [ ] , { } ] `, `[[[]]`, `[]]`,
	`{}`, `{`, `{ }`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a" : 1 , "b":[{}]}`, `{1:2}`, `{"a":1]`, `{"a":1 "b":2}`, `{,}`, `{"a":1,"a":1}`, `{"a"=1}`,
	"\ufeff{}", "\x00", "{}\x00", "\v1", "\u00a01", "\t\r\n 1\n",
	`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{"n":-1.5e3,"b":[true,false,null]}}]}]}`,
}

func TestJSONIsWhatTheLibrarySaysItIs(t *testing.T) {
	for _, text := range jsonTexts {
		if got, want := validJSON([]byte(text)), json.Valid([]byte(text)); got != want {
			t.Errorf("validJSON(%q) = %v; want %v", text, got, want)
		}
	}
	// Every value cut at every byte, and with every byte behind it.
	whole := jsonTexts[len(jsonTexts)-1]
	for i := range whole {
		if validJSON([]byte(whole[:i])) {
			t.Errorf("valid, though cut: %s", whole[:i])
		}
	}
	for c := range 256 {
		for _, text := range []string{"{}", "1", `"a"`, "[1", `"\`, `"\u000`} {
			data := append([]byte(text), byte(c))
			if got, want := validJSON(data), json.Valid(data); got != want {
				t.Errorf("validJSON(%q) = %v; want %v", data, got, want)
			}
			data = append(data, '"')
			if got, want := validJSON(data), json.Valid(data); got != want {
				t.Errorf("validJSON(%q) = %v; want %v", data, got, want)
			}
		}
	}
}

func TestJSONMayBeAsDeepAsTheLibraryReads(t *testing.T) {
	for depth, want := range map[int]bool{maxDepth - 1: true, maxDepth: true, maxDepth + 1: false, 1 << 20: false} {
		for _, pair := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
			data := []byte(strings.Repeat(pair[0], depth) + "1" + strings.Repeat(pair[1], depth))
			if got, library := validJSON(data), json.Valid(data); got != want || got != library {
				t.Errorf("%d levels of %s: %v; want %v, the library says %v", depth, pair[0], got, want, library)
			}
		}
	}
}

func FuzzJSON(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, want := validJSON(data), json.Valid(data); got != want {
			t.Fatalf("validJSON(%q) = %v; want %v", data, got, want)
		}
	})
}
