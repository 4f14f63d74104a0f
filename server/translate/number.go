package translate

import (
	"bytes"
	"math"
	"strconv"
)

// decimal is a number as its significant digits times a power of ten: exactly what was written, whatever its form. Zero has no digits.
type decimal struct {
	digits   []byte // no zero at either end
	exp      int    // of ten, for digits read as an integer
	negative bool
}

// maxExponent is how many digits an exponent may have to be computed with; longer ones are no number that any field holds.
const maxExponent = 9

// parseDecimal reads a number in JSON's grammar; leading zeros are allowed, for ids and codes are sent as strings with them. The
// digits lie in scratch or, where they are too many for it, in a copy.
func parseDecimal(scratch, s []byte) (decimal, bool) {
	d := decimal{digits: scratch[:0]}
	i := 0
	if i < len(s) && s[i] == '-' {
		d.negative = true
		i++
	}
	end := skipDigits(s, i)
	if end == i {
		return d, false
	}
	d.digits = append(d.digits, s[i:end]...)
	i = end
	if i < len(s) && s[i] == '.' {
		end = skipDigits(s, i+1)
		if end == i+1 {
			return d, false
		}
		d.digits = append(d.digits, s[i+1:end]...)
		d.exp = i + 1 - end
		i = end
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		exp, ok := parseExponent(s[i+1:])
		if !ok {
			return d, false
		}
		d.exp += exp
		i = len(s)
	}
	d.digits = bytes.TrimLeft(d.digits, "0")
	all := len(d.digits)
	d.digits = bytes.TrimRight(d.digits, "0")
	d.exp += all - len(d.digits)
	if len(d.digits) == 0 {
		d.exp, d.negative = 0, false
	}
	return d, i == len(s)
}

func parseExponent(s []byte) (int, bool) {
	negative := false
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		negative = s[0] == '-'
		s = s[1:]
	}
	if len(s) == 0 || skipDigits(s, 0) != len(s) {
		return 0, false
	}
	if s = bytes.TrimLeft(s, "0"); len(s) > maxExponent {
		return 0, false
	}
	exp := 0
	for _, c := range s {
		exp = exp*10 + int(c-'0')
	}
	if negative {
		exp = -exp
	}
	return exp, true
}

// magnitude is the number without its sign, if it is integral and fits.
func (d decimal) magnitude() (uint64, bool) {
	if d.exp < 0 || len(d.digits)+d.exp > 20 {
		return 0, len(d.digits) == 0
	}
	var n uint64
	for i := range len(d.digits) + d.exp {
		digit := uint64(0)
		if i < len(d.digits) {
			digit = uint64(d.digits[i] - '0')
		}
		if n > (math.MaxUint64-digit)/10 {
			return 0, false
		}
		n = n*10 + digit
	}
	return n, true
}

// signed is the number as an int64, exactly or not at all.
func (d decimal) signed() (int64, bool) {
	n, ok := d.magnitude()
	switch {
	case !ok:
		return 0, false
	case d.negative:
		return -int64(n), n <= 1<<63
	default:
		return int64(n), n < 1<<63
	}
}

// append writes the number in its one canonical form, which is JSON: digits, and an exponent where it is not zero.
func (d decimal) append(dst []byte) []byte {
	if len(d.digits) == 0 {
		return append(dst, '0')
	}
	if d.negative {
		dst = append(dst, '-')
	}
	dst = append(dst, d.digits...)
	if d.exp != 0 {
		dst = strconv.AppendInt(append(dst, 'e'), int64(d.exp), 10)
	}
	return dst
}

// parseFloat reads a number as the nearest double; what is beyond every double is none.
func parseFloat(s []byte) (float64, bool) {
	f, err := strconv.ParseFloat(string(s), 64)
	return f, err == nil
}

// exactDigits is how many significant decimal digits every double keeps.
const exactDigits = 15

// exactFloat reads a JSON number as a double, if the double's shortest decimal form is the number that was written.
func exactFloat(s []byte) (float64, bool) {
	if n, ok := smallInt(s); ok {
		return float64(n), true
	}
	var a, b [64]byte
	want, ok := parseDecimal(a[:], s)
	if !ok {
		return 0, false
	}
	f, ok := parseFloat(s)
	if !ok {
		return 0, false
	}
	// 290 keeps clear of the subnormal numbers, which hold fewer digits.
	if len(want.digits) <= exactDigits && want.exp > -290 && want.exp < 290 {
		return f, true
	}
	var shortest [32]byte
	got, _ := parseDecimal(b[:], strconv.AppendFloat(shortest[:0], f, 'e', -1, 64))
	return f, got.exp == want.exp && got.negative == want.negative && bytes.Equal(got.digits, want.digits)
}

// smallInt reads a plain integer of at most 15 digits, which is what nearly every number in a webhook is.
func smallInt(s []byte) (int64, bool) {
	negative := len(s) > 0 && s[0] == '-'
	digits := s
	if negative {
		digits = s[1:]
	}
	if len(digits) == 0 || len(digits) > exactDigits {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}
