package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"vmd/internal/logging"
	"vmd/vmd/config"
)

// envDetached tells a vmd that it is the one in the background: whoever
// started it waits at descriptor readyFD.
const (
	envDetached = "VMD_DETACHED"
	readyFD     = 3
)

func detached() bool { return os.Getenv(envDetached) != "" }

// detach starts vmd again in the background and waits until it is ready, or
// has said why it never will be. Go cannot fork, so the two are different
// processes from the start.
func detach(f flags, stderr io.Writer) error {
	if err := mayRun(); err != nil {
		return err
	}
	// A mistake in the file is to be seen here, not in a log.
	if _, err := loadConfig(f, stderr); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	defer null.Close()
	p, err := os.StartProcess("/proc/self/exe", f.args(), &os.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), envDetached+"=1"),
		Files: []*os.File{null, null, null, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	p.Release()
	said, err := io.ReadAll(io.LimitReader(r, 64<<10))
	switch {
	case err != nil:
		return fmt.Errorf("detach: %w", err)
	case len(said) == 0:
		return errors.New("the daemon ended before it was ready; see the log")
	case said[0] != readyOK:
		return errors.New(string(said[1:]))
	}
	return nil
}

// args is the command line of the process in the background. Its directory is
// another, so a relative path would lead it somewhere else.
func (f flags) args() []string {
	args := []string{os.Args[0]}
	if f.fileGiven {
		args = append(args, "-f", f.file)
	}
	for range f.verbose {
		args = append(args, "-v")
	}
	for _, m := range f.macros {
		args = append(args, "-D", m)
	}
	return args
}

// What the process in the background says: one of these bytes, and behind the
// second the reason.
const (
	readyOK   = '+'
	readyFail = '-'
)

// background prepares the process that detach started. The function it returns
// tells whoever waits that vmd runs (nil) or why not; only the first call
// counts.
func background() (func(error), error) {
	os.Unsetenv(envDetached)
	syscall.CloseOnExec(readyFD)
	pipe := os.NewFile(readyFD, "ready")
	say := func(err error) {
		if pipe == nil {
			return
		}
		if err == nil {
			pipe.Write([]byte{readyOK})
		} else {
			pipe.Write(append([]byte{readyFail}, err.Error()...))
		}
		pipe.Close()
		pipe = nil
	}
	return say, logging.Syslog()
}

// loadConfig reads the file that f names, and prints what is odd about it.
func loadConfig(f flags, stderr io.Writer) (*config.Config, error) {
	c, err := config.Load(f.file, config.Options{Macros: f.macros, Optional: !f.fileGiven})
	if err != nil {
		var list *config.Error
		if errors.As(err, &list) {
			printMessages(stderr, list.Warnings)
		}
		return nil, err
	}
	printMessages(stderr, c.Warnings)
	return c, nil
}

func printMessages(w io.Writer, ms []config.Message) {
	for _, m := range ms {
		fmt.Fprintf(w, "%s (warning)\n", m)
	}
}

// testConfig is vmd -n.
func testConfig(f flags, stderr io.Writer) error {
	if _, err := loadConfig(f, stderr); err != nil {
		return err
	}
	fmt.Fprintln(stderr, "configuration OK")
	return nil
}
