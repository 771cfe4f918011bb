package vmop

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxDetail is the most bytes of text that an Event, or what became of one, has:
// so much that every record with it still fits into a packet.
const MaxDetail = 1024

// Text makes s fit to be told to others: s may be a VM process's own words, or
// quote an image. What is not UTF-8 nobody could decode, what is a control
// character would reach a terminal, and what is too long would fit in no packet.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 2*MaxDetail)], "?"))
	if len(s) <= MaxDetail {
		return s
	}
	n := MaxDetail
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
