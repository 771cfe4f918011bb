package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
)

// The emulated machine stands still now and then, whoever runs the guest: an
// interrupt of its processor's is lost for good. A section that says nothing
// for so long is begun anew.
const (
	silence  = 6 * time.Minute // by the clock; no step takes half of it
	patience = time.Hour       // for a whole section, and for its turn
	tries    = 3
)

// progressMark begins a line that says what is being measured.
const progressMark = "# "

// progress says what is measured next.
func progress(format string, args ...any) { fmt.Printf(progressMark+format+"\n", args...) }

// outside runs this program in the lab machine, once for each section.
func outside(what string, rounds int, only string) (status int, err error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	files, err := lab.BuildPrograms(root, dir)
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	files = append(files, lab.File{Name: "/lab/bench", Path: self, Mode: 0o755})
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	var errs []error
	for i, s := range sections {
		if what != "" && s.name != what {
			continue
		}
		if i > 0 && what == "" {
			fmt.Println()
		}
		st, err := section(ctx, files, "-section", s.name, "-n", strconv.Itoa(rounds), "-only", only, fmt.Sprintf("-wall=%t", wall))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
		status = max(status, st)
	}
	return status, errors.Join(errs...)
}

var errSilent = errors.New("the emulated machine stands still")

// section measures one section, and prints what it says when it is whole.
func section(ctx context.Context, files []lab.File, args ...string) (status int, err error) {
	for range tries {
		attempt, cancel := context.WithCancelCause(ctx)
		watch := time.AfterFunc(patience, func() { cancel(errSilent) })
		said := report{heard: func() { watch.Reset(silence) }}
		status, err = lab.Run(attempt, lab.Options{
			Command: append([]string{"/lab/bench"}, args...), Files: files, Stdout: &said,
			Timeout: patience, Virtual: !wall, QEMU: true,
		})
		watch.Stop()
		silent := context.Cause(attempt) == errSilent
		cancel(nil)
		if !silent {
			os.Stdout.Write(said.table.Bytes())
			return status, err
		}
		fmt.Fprintf(os.Stderr, "bench: %v: %v; once more\n", args[:2], errSilent)
	}
	return 0, errSilent
}

// report takes what a section says: its table, and between the lines of that
// what it is about to do.
type report struct {
	table bytes.Buffer
	rest  string // of a line that has not ended
	heard func()
}

func (r *report) Write(p []byte) (int, error) {
	r.heard()
	r.rest += string(p)
	for {
		line, rest, ok := strings.Cut(r.rest, "\n")
		if !ok {
			return len(p), nil
		}
		r.rest = rest
		to := io.Writer(&r.table)
		if strings.HasPrefix(line, progressMark) {
			to = os.Stderr
		}
		io.WriteString(to, line+"\n")
	}
}
