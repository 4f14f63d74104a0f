package eventlog

import (
	"strings"
	"testing"
)

// The subjects are stored state: a change here strands what is on disk.
func TestSubjectsStayWhatTheyAre(t *testing.T) {
	for _, c := range []struct {
		source, key, kind, want string
	}{
		{"shop", "12345:49170", "meta.whatsapp_business_account.messages.message", "ev.1.shop.p59.meta.whatsapp_business_account.messages.message"},
		{"shop", "", "dialog360.channel_live", "ev.1.shop.p37.dialog360.channel_live"},
		{"", "k", "", "ev.1._.p10._"},
		{"a.b c", "k", "meta..x y.*.>", "ev.1.a_b_c.p10.meta._.x_y._._"},
		{"ä-Z_9", "k", "é", "ev.1._-Z_9.p10._"},
		{strings.Repeat("s", 100), "k", strings.Repeat("t.", 40), "ev.1." + strings.Repeat("s", 64) + ".p10" + strings.Repeat(".t", 16)},
	} {
		if got := subject(&Record{Source: c.source, OrderingKey: c.key, Type: c.kind}); got != c.want {
			t.Errorf("subject of %q %q %q is %s, want %s", c.source, c.key, c.kind, got, c.want)
		}
	}
}

func TestOrderingKeysSpreadOverAllPartitions(t *testing.T) {
	seen := map[int]int{}
	for i := range 6400 {
		seen[partition(strings.Repeat("x", i%50)+string(rune('a'+i%26))+strings.Repeat("y", i/50))]++
	}
	if len(seen) != partitions {
		t.Fatalf("%d partitions are used", len(seen))
	}
}
