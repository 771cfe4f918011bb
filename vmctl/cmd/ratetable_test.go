package cmd

import (
	"fmt"
	"strings"
	"testing"
)

// On a terminal no line is longer and no table higher than it is.
func TestRatesFitTheWindow(t *testing.T) {
	var rates []rate
	for i := range 30 {
		rates = append(rates, rate{id: uint32(i + 1), name: fmt.Sprintf("guest-with-a-long-name-%d", i), rx: 1e6, cpu: 99.9})
	}
	for _, c := range []struct {
		w     window
		title string // without blanks
		lines int
		last  string // what the last line has
	}{
		{window{}, "ID CPU% EXITS READS RBYTES WRITES WBYTES RXPKTS RXBYTES TXPKTS TXBYTES MEM NAME", 31, "long-name-29"},
		{window{200, 50}, "ID CPU% EXITS READS RBYTES WRITES WBYTES RXPKTS RXBYTES TXPKTS TXBYTES MEM NAME", 31, "long-name-29"},
		{window{80, 24}, "ID CPU% EXITS RBYTES WBYTES RXBYTES TXBYTES MEM NAME", 23, "and 9 more"},
		{window{80, 32}, "ID CPU% EXITS RBYTES WBYTES RXBYTES TXBYTES MEM NAME", 31, "guest-with-a-long-n"},
		{window{80, 31}, "ID CPU% EXITS RBYTES WBYTES RXBYTES TXBYTES MEM NAME", 30, "and 2 more"},
		{window{62, 5}, "ID CPU% RBYTES WBYTES RXBYTES TXBYTES NAME", 4, "and 28 more"},
		{window{30, 3}, "ID CPU% NAME", 2, "and 30 more"},
		{window{20, 2}, "NAME", 1, "NAME"},
		{window{3, 1}, "NAM", 1, "NAM"},
	} {
		var b strings.Builder
		if err := writeRates(&b, rates, c.w); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if got := strings.Join(strings.Fields(lines[0]), " "); got != c.title || len(lines) != c.lines ||
			!strings.Contains(lines[len(lines)-1], c.last) {
			t.Errorf("%+v: %d lines\n%s", c.w, len(lines), b.String())
		}
		for _, l := range lines {
			if c.w.width > 0 && len(l) > c.w.width {
				t.Errorf("%+v: %q is longer", c.w, l)
			}
		}
	}
}
