package nearest

import (
	"strings"
	"testing"
)

func TestWord(t *testing.T) {
	long := strings.Repeat("x", maxWord)
	for _, c := range []struct {
		word  string
		known []string
		want  string
	}{
		{"memoy", []string{"disk", "memory"}, "memory"},
		{"strat", []string{"status", "start"}, "start"},
		{"enabled", []string{"disable", "enable"}, "enable"},
		{"vmm", []string{"switch", "vm"}, "vm"},
		{"Memory", []string{"memory"}, "memory"},
		{"memory", []string{"memory"}, ""},
		{"web3", []string{"db", "web1", "web2"}, "web1"},
		{"nic", []string{"disk", "interface"}, ""},
		{"x", []string{"y"}, ""},
		{"xy", []string{"xz"}, "xz"},
		{"", []string{"a"}, ""},
		{"a", nil, ""},
		{"a", []string{""}, ""},
		{long, []string{long[1:]}, long[1:]},
		{long + "x", []string{long}, ""},
		{long, []string{long + "x"}, ""},
	} {
		if got := Word(c.word, c.known); got != c.want {
			t.Errorf("%q in %q: %q, want %q", c.word, c.known, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1},
		{"ca", "abc", 3}, {"kitten", "sitting", 3}, {"status", "statsu", 1}, {"abcd", "badc", 2},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func FuzzWord(f *testing.F) {
	f.Add("memoy", "memory")
	f.Add("\xff", "\xfe\x00")
	f.Fuzz(func(t *testing.T, word, known string) {
		if got := Word(word, []string{known}); got != "" && got != known {
			t.Errorf("%q for %q, known is %q", got, word, known)
		}
	})
}
