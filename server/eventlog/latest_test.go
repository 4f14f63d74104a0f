package eventlog

import "testing"

func TestTheLatestEntriesAreARowThatEndsWithTheLog(t *testing.T) {
	var l latest
	want := func(from uint64, rs []Record) {
		t.Helper()
		es := l.from(from)
		if len(rs) == 0 && len(es) == 0 {
			return
		}
		wantEntries(t, es, from, rs)
		for i, e := range es {
			if last := i+1 == len(es) || e.ID == "journal-4"; e.More == last {
				t.Errorf("more follows on %s: %v", e.ID, e.More)
			}
		}
	}
	l.add(1, records(1, 4))
	l.add(5, records(5, 3))
	want(1, records(1, 7))
	want(6, records(6, 2))
	want(8, nil)
	l.add(10, records(10, 2)) // where 8 and 9 lie nobody was told
	want(1, nil)
	want(10, records(10, 2))
	l.add(0, records(12, 2))
	want(10, nil)

	large := records(20, 3)
	for i := range large {
		large[i].Data = make([]byte, latestBytes/2)
	}
	l.add(20, large)
	want(20, nil)
	want(22, large[2:])
	if l.bytes > latestBytes {
		t.Errorf("%d bytes are kept", l.bytes)
	}
}
