package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"vmd/internal/testenv"
)

func TestManualIsClean(t *testing.T) {
	mandoc := testenv.Tool(t, "mandoc")
	out, err := exec.Command(mandoc, "-T", "lint", "vmctl.8").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// Whether other manuals are installed is no matter of this one.
		if !strings.Contains(line, "referenced manual not found") && !strings.Contains(line, "mandoc.db") {
			t.Errorf("%s", line)
		}
	}
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
}

// What the usage lines promise, the manual explains.
func TestManualHasEveryCommand(t *testing.T) {
	b, err := os.ReadFile("vmctl.8")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	for _, name := range []string{
		"completion", "console", "create", "load", "log", "pause", "receive", "reload", "reset", "restart", "send", "show", "start", "stats", "status",
		"stop", "unpause", "wait",
	} {
		if !strings.Contains(manual, "\n.It Cm "+name+"\n") && !strings.Contains(manual, "\n.It Cm "+name+" ") &&
			!strings.Contains(manual, "\n.It Xo Cm "+name+"\n") {
			t.Errorf("vmctl.8 has no entry for %s", name)
		}
	}
}
