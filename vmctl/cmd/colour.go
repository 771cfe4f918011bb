package cmd

import (
	"io"
	"os"

	"golang.org/x/term"

	"vmd/internal/vmop"
)

// onTerminal reports whether w is a terminal that understands control
// sequences.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	yes := false
	raw.Control(func(fd uintptr) { yes = term.IsTerminal(int(fd)) })
	return yes
}

// windowOf is the size of the terminal w, without bounds if it does not say.
func windowOf(w io.Writer) window {
	f, ok := w.(*os.File)
	if !ok {
		return window{}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return window{}
	}
	var size window
	raw.Control(func(fd uintptr) {
		if width, height, err := term.GetSize(int(fd)); err == nil {
			size = window{width, height}
		}
	})
	return size
}

// stateColours are SGR parameters (ECMA-48, 8.3.117).
var stateColours = map[vmop.State]string{
	vmop.Running: "32", vmop.Paused: "33", vmop.Stopping: "33", vmop.Migrating: "33", vmop.Starting: "36", vmop.Waiting: "36", vmop.Crashed: "31",
}

// stateColour returns how to write a state. It has a colour only on a terminal,
// where no program reads it, and not if NO_COLOR is set (no-color.org).
func (t *tool) stateColour() func(vmop.State, string) string {
	if os.Getenv("NO_COLOR") != "" || !onTerminal(t.out) {
		return func(_ vmop.State, s string) string { return s }
	}
	return func(st vmop.State, s string) string {
		if c := stateColours[st]; c != "" {
			return "\x1b[" + c + "m" + s + "\x1b[m"
		}
		return s
	}
}
