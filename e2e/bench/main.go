// Bench measures vmd against QEMU from the distribution, each section in one run
// of the lab machine: time from the start of a guest to its init, exits on the way,
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
	"flag"
	"fmt"
	"os"
	"strings"

	"vmd/internal/testenv"
)

// wall says that time is that of a clock.
var wall bool

func main() {
	rounds := flag.Int("n", 3, "`rounds` that count; one before them does not")
	flag.BoolVar(&wall, "wall", false, "measure with the clock")
	only := flag.String("only", "", "measure this `machine` only")
	what := flag.String("section", "", "measure this `section` only: "+sectionNames())
	flag.Parse()
	status := 0
	var err error
	if testenv.InLab() {
		err = inside(*what, *rounds, *only)
	} else {
		status, err = outside(*what, *rounds, *only)
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

// inside measures one section.
func inside(what string, rounds int, only string) error {
	for _, s := range sections {
		if s.name == what {
			return s.measure(rounds, only)
		}
	}
	return fmt.Errorf("no section %q: %s", what, sectionNames())
}
