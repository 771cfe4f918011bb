// Command vmd runs virtual machines on KVM as vm.conf(5) says. See vmd(8).
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"vmd/internal/privsep"
	"vmd/vmd/config"
)

const usage = "usage: vmd [-dnv] [-D macro=value] [-f file]\n"

func init() {
	// A name that cannot be set is no reason not to run.
	_ = privsep.SetName()
}

func main() {
	if privsep.RoleName() != "" {
		os.Exit(runRole())
	}
	os.Exit(run(os.Args[1:], os.Stderr))
}

// flags are the command line.
type flags struct {
	foreground bool
	test       bool
	verbose    int
	macros     []string
	file       string
	fileGiven  bool
}

func parseFlags(args []string) (flags, error) {
	var f flags
	fs := pflag.NewFlagSet("vmd", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVarP(&f.foreground, "foreground", "d", false, "")
	fs.BoolVarP(&f.test, "test", "n", false, "")
	fs.CountVarP(&f.verbose, "verbose", "v", "")
	fs.StringArrayVarP(&f.macros, "define", "D", nil, "")
	fs.StringVarP(&f.file, "file", "f", config.DefaultPath, "")
	err := flagError(fs.Parse(args))
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	f.fileGiven = fs.Changed("file")
	if err == nil {
		// The daemon's directory is / (vm.conf(5)).
		f.file, err = filepath.Abs(f.file)
	}
	return f, err
}

// flagError says it as getopt(3) does, and vmctl.
func flagError(err error) error {
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("unknown option -- %s", unknown.GetSpecifiedName())
	case errors.As(err, &missing):
		return fmt.Errorf("option requires an argument -- %s", missing.GetSpecifiedName())
	}
	return err
}

func run(args []string, stderr io.Writer) int {
	f, err := parseFlags(args)
	if err != nil {
		if !errors.Is(err, pflag.ErrHelp) {
			fmt.Fprintf(stderr, "vmd: %v\n", err)
		}
		io.WriteString(stderr, usage)
		return 1
	}
	start := runParent
	switch {
	case f.test:
		start = testConfig
	case !f.foreground && !detached():
		start = detach
	}
	if !f.test && !f.foreground {
		if err := os.Chdir("/"); err != nil {
			report(stderr, err)
			return 1
		}
	}
	if err := start(f, stderr); err != nil {
		report(stderr, err)
		return 1
	}
	return 0
}

// report prints err. Messages about a file each have a line and begin with its
// name, as every tool expects that jumps to it.
func report(w io.Writer, err error) {
	var list *config.Error
	if !errors.As(err, &list) {
		fmt.Fprintf(w, "vmd: %v\n", err)
		return
	}
	for _, m := range list.Messages {
		fmt.Fprintln(w, m)
	}
}
