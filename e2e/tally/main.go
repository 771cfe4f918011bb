// Tally runs go test and sums up: failures with their output, a line for each
// package, why tests were skipped, and at the end which tiers of tests ran.
//
//	go run ./e2e/tally [go test's arguments] -- PACKAGES [-- PACKAGES ...]
//
// Groups of packages run one after another: those that keep a processor busy
// go last, alone. It fails if a test does, or if VMD_TEST_REQUIRE names a tier
// of which nothing ran.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout))
}

func run(args []string, w io.Writer) int {
	flags, groups := split(args)
	s := newSummary(w)
	for _, group := range groups {
		if err := s.goTest(append(slices.Clone(flags), group...)); err != nil {
			fmt.Fprintf(w, "tally: %v\n", err)
			s.broken = true
		}
	}
	return s.finish(os.Getenv("VMD_TEST_REQUIRE"))
}

// split parts the arguments at "--": flags first, then groups of packages.
func split(args []string) (flags []string, groups [][]string) {
	parts := [][]string{nil}
	for _, arg := range args {
		if arg == "--" {
			parts = append(parts, nil)
			continue
		}
		last := len(parts) - 1
		parts[last] = append(parts[last], arg)
	}
	for _, group := range parts[1:] {
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return parts[0], groups
}

// goTest runs go test -json and reads its events. A failed test is no error:
// it is in the events.
func (s *summary) goTest(args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = s.w
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := s.read(out)
	err = cmd.Wait()
	if readErr != nil {
		return readErr
	}
	if err != nil && s.failures() == 0 {
		return fmt.Errorf("go test: %w, but no test failed", err)
	}
	return nil
}
