package cmd

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Every option says what it does, in a line of a terminal, and no line is left
// of an option that has gone.
func TestOptionsHaveHelp(t *testing.T) {
	unused := map[string]bool{}
	for name := range optionHelp {
		unused[name] = true
	}
	for _, c := range (&tool{out: io.Discard, err: io.Discard}).root().Commands() {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			delete(unused, f.Name)
			if f.Usage == "" && !f.Hidden {
				t.Errorf("%s --%s has no help", c.Name(), f.Name)
			}
		})
		for line := range strings.Lines(c.Flags().FlagUsages()) {
			if len(line) > 80 {
				t.Errorf("%s: %q is longer than a line", c.Name(), line)
			}
		}
	}
	for name := range unused {
		t.Errorf("help for --%s, which no command has", name)
	}
}
