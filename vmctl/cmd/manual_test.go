package cmd

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Every option of every command is in the manual.
func TestOptionsAreInManual(t *testing.T) {
	b, err := os.ReadFile("../vmctl.8")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	for _, c := range (&tool{out: io.Discard, err: io.Discard}).root().Commands() {
		entry := manual
		for _, start := range []string{"\n.It Xo Cm " + c.Name() + "\n", "\n.It Cm " + c.Name() + "\n", "\n.It Cm " + c.Name() + " "} {
			if _, after, ok := strings.Cut(manual, start); ok {
				entry, _, _ = strings.Cut(after, "\n.It Xo Cm ")
			}
		}
		if c.Name() == "show" { // says that it is status
			continue
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			if f.Shorthand == "" {
				if !strings.Contains(entry, "Fl Fl "+f.Name) {
					t.Errorf("%s --%s is not in the manual", c.Name(), f.Name)
				}
				return
			}
			for _, line := range strings.Split(entry, "\n") {
				if _, after, ok := strings.Cut(line, "Fl "); ok && strings.Contains(strings.Fields(after)[0], f.Shorthand) {
					return
				}
			}
			t.Errorf("%s -%s is not in the manual", c.Name(), f.Shorthand)
		})
	}
}
