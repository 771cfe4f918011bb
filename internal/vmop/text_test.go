package vmop

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"disk \"/a\": no space":  "disk \"/a\": no space",
		"a\x1b]0;you\x07\r\nb":   "a?]0;you??\nb",
		"\xff\xfe x":             "? x",
		strings.Repeat("a", 9e4): strings.Repeat("a", MaxDetail),
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%.20q) is %.40q, want %.40q", in, got, want)
		}
	}
	long := Text("a" + strings.Repeat("é", MaxDetail))
	if !utf8.ValidString(long) || len(long) > MaxDetail {
		t.Errorf("%d bytes, valid %v", len(long), utf8.ValidString(long))
	}
}
