package translate

import (
	"slices"
	"time"
)

// moment is a point in time as google.protobuf.Timestamp holds it.
type moment struct {
	seconds int64
	nanos   int32
}

// What google.protobuf.Timestamp can say: the years 1 to 9999.
const (
	minSeconds = -62135596800
	maxSeconds = 253402300799
)

// millisFrom is the number from which on a time is milliseconds: as seconds it is the year 5138, as milliseconds 1973.
const millisFrom = 100_000_000_000

// parseMoment reads a time as providers send it: seconds or milliseconds since 1970, with or without a fraction, or ISO 8601. What a
// Timestamp cannot say exactly is none.
func parseMoment(s []byte) (moment, bool) {
	if n, ok := smallInt(s); ok {
		return fromNumber(n, 0)
	}
	var scratch [64]byte
	if d, ok := parseDecimal(scratch[:], s); ok {
		return fromDecimal(d)
	}
	return parseISO(s)
}

// fromNumber is the moment n seconds and nanos after 1970, or n milliseconds and so many millionths of one.
func fromNumber(n int64, nanos int32) (moment, bool) {
	m := moment{seconds: n, nanos: nanos}
	if n >= millisFrom || n <= -millisFrom {
		if nanos%1000 != 0 {
			return moment{}, false
		}
		m = moment{seconds: n / 1000, nanos: int32(n%1000)*1e6 + nanos/1000}
	}
	if m.nanos < 0 {
		m.seconds, m.nanos = m.seconds-1, m.nanos+1e9
	}
	return m, m.seconds >= minSeconds && m.seconds <= maxSeconds
}

// fromDecimal splits the number at its point; nine digits behind it are what a Timestamp holds.
func fromDecimal(d decimal) (moment, bool) {
	if d.exp >= 0 {
		n, ok := d.signed()
		if !ok {
			return moment{}, false
		}
		return fromNumber(n, 0)
	}
	if d.exp < -9 {
		return moment{}, false
	}
	point := max(len(d.digits)+d.exp, 0)
	whole := decimal{digits: d.digits[:point], negative: d.negative}
	fraction := decimal{digits: d.digits[point:], exp: d.exp + 9, negative: d.negative}
	n, ok := whole.signed()
	nanos, _ := fraction.signed()
	if !ok {
		return moment{}, false
	}
	return fromNumber(n, int32(nanos))
}

// parseISO reads YYYY-MM-DD, alone or with a time behind `T` or a space: HH:MM, seconds and fraction if there are any, and a zone as
// `Z`, +HH, +HHMM or +HH:MM. Without a zone it is UTC.
func parseISO(s []byte) (moment, bool) {
	p := isoReader{rest: s, ok: true}
	year := p.number(4)
	p.expect('-')
	month := p.number(2)
	p.expect('-')
	day := p.number(2)
	var hour, minute, second, nanos, offset int
	if p.ok && len(p.rest) > 0 {
		p.expect('T', 't', ' ')
		hour = p.number(2)
		p.expect(':')
		minute = p.number(2)
		if p.accept(':') {
			second = p.number(2)
			if p.accept('.') || p.accept(',') {
				nanos = p.fraction()
			}
		}
		offset = p.zone()
	}
	if !p.ok || len(p.rest) > 0 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return moment{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day {
		return moment{}, false
	}
	m := moment{seconds: t.Unix() - int64(offset), nanos: int32(nanos)}
	return m, m.seconds >= minSeconds && m.seconds <= maxSeconds
}

// isoReader takes fixed pieces off a text; once something does not fit, ok is false for good.
type isoReader struct {
	rest []byte
	ok   bool
}

func (p *isoReader) number(digits int) int {
	if len(p.rest) < digits || skipDigits(p.rest[:digits], 0) != digits {
		p.ok = false
		return 0
	}
	n := 0
	for _, c := range p.rest[:digits] {
		n = n*10 + int(c-'0')
	}
	p.rest = p.rest[digits:]
	return n
}

func (p *isoReader) accept(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *isoReader) expect(one ...byte) {
	if !slices.ContainsFunc(one, p.accept) {
		p.ok = false
	}
}

// fraction reads up to nine digits as nanoseconds, and zeros behind them.
func (p *isoReader) fraction() int {
	end := skipDigits(p.rest, 0)
	digits := p.rest[:end]
	p.rest = p.rest[end:]
	p.ok = p.ok && end > 0
	n := 0
	for i := range max(9, end) {
		digit := 0
		if i < end {
			digit = int(digits[i] - '0')
		}
		if i < 9 {
			n = n*10 + digit
		} else if digit != 0 {
			p.ok = false
		}
	}
	return n
}

// zone reads an offset from UTC in seconds; UTC where there is none.
func (p *isoReader) zone() int {
	if len(p.rest) == 0 || p.accept('Z') || p.accept('z') {
		return 0
	}
	sign := 1
	if p.accept('-') {
		sign = -1
	} else {
		p.expect('+')
	}
	hours, minutes := p.number(2), 0
	if p.accept(':') || len(p.rest) > 0 {
		minutes = p.number(2)
	}
	if hours > 23 || minutes > 59 {
		p.ok = false
	}
	return sign * (hours*3600 + minutes*60)
}
