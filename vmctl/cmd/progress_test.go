package cmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"

	"vmd/internal/vmop"
)

func TestBar(t *testing.T) {
	for _, tt := range []struct {
		done, total int64
		want        string
	}{
		{0, 1 << 30, "[" + strings.Repeat(" ", 40) + "]   0% of 1.0G"},
		{1 << 29, 1 << 30, "[" + strings.Repeat("#", 20) + strings.Repeat(" ", 20) + "]  50% of 1.0G"},
		{7, 7, "[" + strings.Repeat("#", 40) + "] 100% of 7B"},
	} {
		if got := bar(tt.done, tt.total); got != tt.want {
			t.Errorf("%d of %d: %q, want %q", tt.done, tt.total, got, tt.want)
		}
	}
}

// A terminal gets a bar, which is gone when the message comes; a file does not.
func TestCreateShowsProgressOnTerminal(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.WriteFile(src, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TERM", "xterm")
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer tty.Close()
	s := &screen{}
	s.more = sync.NewCond(&s.mu)
	go s.read(keys)
	if st := Main([]string{"create", "-i", src, filepath.Join(dir, "a")}, nil, tty, tty); st != 0 {
		t.Errorf("exit status %d", st)
	}
	s.wait(t, "% of 1.0M\r\x1b[Kvmctl: raw imagefile created\r\n")
	var errs bytes.Buffer
	Main([]string{"create", "-i", src, filepath.Join(dir, "b")}, nil, &errs, &errs)
	if got := errs.String(); got != "vmctl: raw imagefile created\n" {
		t.Errorf("in a file: %q", got)
	}
}

// Only a terminal sees colours, and not one whose user wants none.
func TestStateColours(t *testing.T) {
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer tty.Close()
	for _, tt := range []struct {
		name, term, noColour string
		out                  *os.File
		want                 bool
	}{
		{"terminal", "xterm", "", tty, true},
		{"NO_COLOR", "xterm", "1", tty, false},
		{"dumb", "dumb", "", tty, false},
		{"file", "xterm", "", nil, false},
	} {
		t.Setenv("TERM", tt.term)
		t.Setenv("NO_COLOR", tt.noColour)
		run := &tool{out: tt.out}
		if tt.out == nil {
			run.out = &bytes.Buffer{}
		}
		if got := run.stateColour()(vmop.Running, " running") != " running"; got != tt.want {
			t.Errorf("%s: coloured %v, want %v", tt.name, got, tt.want)
		}
	}
}
