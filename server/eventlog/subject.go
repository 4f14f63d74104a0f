package eventlog

import (
	"hash/fnv"
	"strconv"
	"strings"
)

const (
	// subjectPrefix begins every subject: "ev" and the version of this layout.
	subjectPrefix = "ev.1."

	// partitions is how many ways the ordering keys are dealt. It is stored state: ordered subscriptions stand on the word.
	partitions = 64

	// maxToken and maxTokens keep a subject far below the 4 KiB that NATS allows for a whole protocol line.
	maxToken  = 64
	maxTokens = 16
)

// subject is ev.1.<source>.<p00 to p63>.<type>, where the type's own dots separate tokens. The partition is FNV-1a, 64 bits,
// of the ordering key modulo 64, so that all events with one key lie in one partition for good.
func subject(r *Record) string {
	var b strings.Builder
	b.Grow(96)
	b.WriteString(subjectPrefix)
	writeToken(&b, r.Source)
	b.WriteByte('.')
	writePartition(&b, partition(r.OrderingKey))
	n := 0
	for word := range strings.SplitSeq(r.Type, ".") {
		if n++; n > maxTokens {
			break
		}
		b.WriteByte('.')
		writeToken(&b, word)
	}
	return b.String()
}

// writePartition writes the word of a partition.
func writePartition(b *strings.Builder, p int) {
	b.WriteByte('p')
	if p < 10 {
		b.WriteByte('0')
	}
	b.WriteString(strconv.Itoa(p))
}

func partition(orderingKey string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(orderingKey)) // a hash never fails
	return int(h.Sum64() % partitions)
}

// writeToken writes s as one subject token: [A-Za-z0-9_-], anything else as _, never empty.
func writeToken(b *strings.Builder, s string) {
	if s == "" {
		b.WriteByte('_')
		return
	}
	n := 0
	for _, c := range s {
		if n++; n > maxToken {
			return
		}
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
			b.WriteRune(c)
		default:
			b.WriteByte('_')
		}
	}
}
