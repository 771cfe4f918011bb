package logging

import (
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// TestOneLine: nobody whose words are logged can write lines of a log, or to the
// terminal that shows it.
func TestOneLine(t *testing.T) {
	const evil = "a\nparent: all is well\r\x1b[2J\u009b31m"
	var b strings.Builder
	log := zerolog.New(&lineWriter{out: &b, name: "x"})
	log.Warn().Err(errors.New(evil)).Str("detail", evil).Strs("all", []string{evil}).Msg(evil)
	s := b.String()
	if strings.Count(s, "\n") != 1 || strings.ContainsAny(s, "\r\x1b\u009b") || !strings.HasPrefix(s, "x: warn: a?parent") {
		t.Errorf("logged %q", s)
	}
}
