// Package scaled reads and prints sizes as scan_scaled(3) and fmt_scaled(3) of
// OpenBSD do: "512M" in, "512M" out, always in powers of 1024.
package scaled

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// What is wrong with a size. The texts are those of EINVAL and ERANGE, which
// is what the originals return.
var (
	ErrSyntax = errors.New("invalid argument")
	ErrRange  = errors.New("numerical result out of range")
)

// units are the suffixes in order: unit i stands for 1024 to the power of i.
const units = "BKMGTPE"

const (
	// maxWhole is how many digits scan_scaled(3) takes before the point,
	// leading zeros included.
	maxWhole = 20
	// maxFraction is how many digits count after the point; the others are
	// dropped.
	maxFraction = 19
)

// number is what stands before the unit: whole and fraction/pow10(digits).
type number struct {
	whole    uint64
	fraction uint64 // below 10^19
	divisor  uint64 // 10 to the number of digits in fraction
}

// Parse reads blanks, a sign, digits with an optional fraction and a unit
// letter of either case:
//
//	512M   1.5g   .5M   1048576   -1K
//
// Without a unit the number means bytes and its fraction is dropped. With one
// the fraction counts and the result is cut to a whole byte. Where the original
// ignores whatever follows the unit, Parse only allows white space.
func Parse(s string) (int64, error) {
	rest := strings.TrimLeft(s, " \t\n\v\f\r")
	rest = strings.TrimRight(rest, " \t\n\v\f\r")
	negative := false
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		negative = rest[0] == '-'
		rest = rest[1:]
	}
	n, rest, err := scanNumber(rest)
	if err != nil {
		return 0, err
	}
	v := n.whole
	if rest != "" {
		if v, err = n.scale(rest); err != nil {
			return 0, err
		}
	}
	if v > math.MaxInt64 {
		return 0, ErrRange
	}
	if negative {
		return -int64(v), nil
	}
	return int64(v), nil
}

// scanNumber takes the digits and the point from the head of s. No digit at
// all is zero.
func scanNumber(s string) (n number, rest string, err error) {
	n.divisor = 1
	point, whole, fraction := false, 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.' && point:
			return n, "", ErrSyntax
		case c == '.':
			point = true
		case c < '0' || c > '9':
			return n, s[i:], nil
		case point && fraction < maxFraction:
			n.fraction = n.fraction*10 + uint64(c-'0')
			n.divisor *= 10
			fraction++
		case point:
			// More digits than can matter.
		default:
			whole++
			if whole > maxWhole || n.whole > (math.MaxInt64-uint64(c-'0'))/10 {
				return n, "", ErrRange
			}
			n.whole = n.whole*10 + uint64(c-'0')
		}
	}
	return n, "", nil
}

// scale multiplies n by the unit that unit spells.
func (n number) scale(unit string) (uint64, error) {
	i := strings.IndexByte(units, unit[0]&^0x20)
	if len(unit) != 1 || i < 0 {
		return 0, ErrSyntax
	}
	factor := uint64(1) << (10 * i)
	if n.whole > math.MaxInt64/factor {
		return 0, ErrRange
	}
	// fraction < divisor, so the quotient is below factor and fits.
	hi, lo := bits.Mul64(n.fraction, factor)
	q, _ := bits.Div64(hi, lo, n.divisor)
	return n.whole*factor + q, nil
}

// Format prints n in at most six characters: a whole number of bytes or of
// hundreds and more, else one decimal.
//
//	0B   100B   512M   1.5G   1024M
//
// The last is one byte less than 1G: rounding does not change the unit.
func Format(n uint64) string {
	i := 0
	for i < len(units)-1 && n>>(10*(i+1)) != 0 {
		i++
	}
	whole := n >> (10 * i)
	if i == 0 {
		return fmt.Sprintf("%dB", whole)
	}
	// The rest in 1024ths, then in tenths, rounded.
	rest := n >> (10 * (i - 1)) & 1023
	tenths := (10*rest + 512) / 1024
	if tenths == 10 {
		whole, tenths = whole+1, 0
	}
	if whole >= 100 {
		if tenths >= 5 {
			whole++
		}
		return fmt.Sprintf("%d%c", whole, units[i])
	}
	return fmt.Sprintf("%d.%d%c", whole, tenths, units[i])
}
