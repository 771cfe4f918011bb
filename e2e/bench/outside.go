package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
)

// patience bounds a whole section, by the clock.
const patience = time.Hour

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

// section measures one section.
func section(ctx context.Context, files []lab.File, args ...string) (status int, err error) {
	return lab.Run(ctx, lab.Options{
		Command: append([]string{"/lab/bench"}, args...), Files: files, Stdout: new(report),
		Timeout: patience, Virtual: !wall, QEMU: true,
	})
}

// report takes what a section says: the lines of its table, for the standard
// output, and between them those of what it is about to do, for the other one.
type report struct {
	rest string // of a line that has not ended
}

func (r *report) Write(p []byte) (int, error) {
	r.rest += string(p)
	for {
		line, rest, ok := strings.Cut(r.rest, "\n")
		if !ok {
			return len(p), nil
		}
		r.rest = rest
		to := os.Stdout
		if strings.HasPrefix(line, progressMark) {
			to = os.Stderr
		}
		fmt.Fprintln(to, line)
	}
}
