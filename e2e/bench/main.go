// Bench measures vmd against QEMU from the distribution, all in one run of the
// lab machine: time from the start of a guest to its init, exits on the way,
// and memory of the process that runs it, without the guest's; then its
// network.
//
//	go run ./e2e/bench [-n rounds] [-wall] [-section name]
//
// Times are virtual: the lab machine counts 2 ns an instruction, so they do not
// depend on the host or its load (spread below one percent), and say nothing
// about real processors. With -wall they are those of a clock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// wall says that time is that of a clock.
var wall bool

func main() {
	rounds := flag.Int("n", 3, "`rounds` that count; one before them does not")
	flag.BoolVar(&wall, "wall", false, "measure with the clock; vhost is measured so only")
	only := flag.String("only", "", "measure this `machine` only")
	what := flag.String("section", "", "measure this `section` only: "+sectionNames())
	flag.Parse()
	status := 0
	var err error
	if testenv.InLab() {
		err = inside(*what, *rounds, *only)
	} else {
		status, err = outside("-n", strconv.Itoa(*rounds), "-only", *only, "-section", *what, fmt.Sprintf("-wall=%t", wall))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		status = 1
	}
	os.Exit(status)
}

// sections are what there is to measure, in this order.
var sections = []struct {
	name    string
	measure func(rounds int, only string) error
}{
	{"boot", measure},
	{"disk", measureDisk},
	{"network", measureNetwork},
}

func sectionNames() string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// inside measures one section, or all.
func inside(what string, rounds int, only string) error {
	var errs []error
	for i, s := range sections {
		if what != "" && s.name != what {
			continue
		}
		if i > 0 && what == "" {
			fmt.Println()
		}
		errs = append(errs, s.measure(rounds, only))
	}
	return errors.Join(errs...)
}

// outside runs this program, with these arguments, in the lab machine.
func outside(args ...string) (int, error) {
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
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	return lab.Run(ctx, lab.Options{
		Command: append([]string{"/lab/bench"}, args...),
		Files:   append(files, lab.File{Name: "/lab/bench", Path: self, Mode: 0o755}),
		Stdout:  os.Stdout,
		Timeout: 20 * time.Minute,
		Virtual: !wall,
		QEMU:    true,
	})
}
