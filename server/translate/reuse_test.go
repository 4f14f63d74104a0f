package translate

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"weak"
)

func caseBodies(t *testing.T) (bodies [][]byte) {
	files, err := filepath.Glob("testdata/cases/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	return bodies
}

// copied is all that events say, in memory of its own.
func copied(events []Event) []byte {
	var all bytes.Buffer
	for _, ev := range events {
		fmt.Fprintf(&all, "%q %q %q %x\n", ev.ID, ev.Type, ev.OrderingKey, ev.Data)
	}
	return all.Bytes()
}

func TestEventsStayAsTheyAreWhileOtherBodiesAreTranslated(t *testing.T) {
	bodies := caseBodies(t)
	var events [][]Event
	var said [][]byte
	for _, body := range bodies {
		events = append(events, Translate(notify(body)))
		said = append(said, copied(events[len(events)-1]))
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i, body := range bodies {
				if !bytes.Equal(copied(Translate(notify(body))), said[i]) {
					t.Errorf("body %d makes other events beside others", i)
				}
			}
		})
	}
	all.Wait()
	for i := range bodies {
		if !bytes.Equal(copied(events[i]), said[i]) {
			t.Errorf("the events of body %d have changed", i)
		}
	}
}

func TestNothingHoldsABodyOnceItIsTranslated(t *testing.T) {
	for name, text := range map[string]string{
		"a message": textBody, "a batch": string(batchBody(10)), "a history": string(historyBody(50_000)),
		"keys with escapes": changed("page", "mood", `{"\u0061":{"b\n":1}}`), "an unknown payload": changed("page", "mood", `{"a":{"b":1}}`),
		"no JSON": "{" + strings.Repeat(" ", 64), // smaller ones lie together with others in memory, and are held by those
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(text)
			held := weak.Make(&body[0])
			events := Translate(notify(body))
			runtime.GC()
			if held.Value() != nil {
				t.Error("the body is still held")
			}
			runtime.KeepAlive(events)
		})
	}
}

func TestALargeBodyKeepsNoLargeRoom(t *testing.T) {
	body := historyBody(3_000_000)
	n := notify(body)
	tr := newTranslator(n)
	if !tr.doc.parse(body) {
		t.Fatal("not read")
	}
	tr.body(0)
	if len(tr.doc.nodes) <= keptNodes || tr.room.split.form == nil {
		t.Fatalf("%d nodes, form %v", len(tr.doc.nodes), tr.room.split.form)
	}
	if events := tr.release(); len(events) < 10 {
		t.Fatalf("%d events", len(events))
	}
	for name, room := range map[string]int{
		"hash": cap(tr.hash), "raw": cap(tr.raw), "out": cap(tr.enc.out), "keys": cap(tr.canon.keys), "shared": cap(tr.room.split.shared[levelAll].context),
	} {
		if room > keptBytes {
			t.Errorf("%s keeps %d bytes", name, room)
		}
	}
	if tr.room.split.form != nil {
		t.Error("the form of the raws is kept")
	}
	if cap(tr.doc.nodes) > keptNodes || cap(tr.canon.members) > keptParts || cap(tr.enc.names) > keptParts {
		t.Errorf("%d nodes, %d members and %d names are kept", cap(tr.doc.nodes), cap(tr.canon.members), cap(tr.enc.names))
	}
}

func TestATranslatorRemembersNoMoreTypesThanThereAre(t *testing.T) {
	tr := newTranslator(notify(nil))
	for i := range 3 * maxTypes {
		word := fmt.Sprint("made_up_", i)
		if typ, route := tr.typ("meta", "page", word); typ != "meta.page."+word || route != tr.schema.route(typ) {
			t.Fatalf("type %q goes to %v", typ, route)
		}
		if len(tr.types) > maxTypes {
			t.Fatalf("%d types", len(tr.types))
		}
	}
	tr.release()
}
