package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Elapsed    float64
	Output     string
	Key, Value string // of attr
}

// tiers in the order they are told.
var tiers = []string{"T0", "T1", "T1L", "T2", "T3"}

// slow is from how many seconds on a test is told by name.
const slow = 20

// name identifies a test.
type name struct{ pkg, test string }

// outcome is what is known of one test.
type outcome struct {
	result string // pass, fail, skip; empty while it runs
	tier   string // the highest it found
	output []string
	parent bool // has subtests, which are counted instead
}

type summary struct {
	w      io.Writer
	tests  map[name]*outcome
	broken bool // something failed that is not a test
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, tests: make(map[name]*outcome)}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			s.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes one line of output. What is not JSON comes from the go command.
func (s *summary) line(b []byte) {
	var e event
	if err := json.Unmarshal(b, &e); err != nil {
		s.w.Write(b)
		return
	}
	switch {
	case e.Action == "build-output":
		io.WriteString(s.w, e.Output)
	case e.Action == "build-fail":
		s.broken = true
	case e.Test == "":
		s.packageEvent(e)
	default:
		s.testEvent(e)
	}
}

func (s *summary) test(n name) *outcome {
	o := s.tests[n]
	if o == nil {
		o = &outcome{tier: tiers[0]}
		s.tests[n] = o
	}
	return o
}

func (s *summary) testEvent(e event) {
	o := s.test(name{e.Package, e.Test})
	switch e.Action {
	case "run":
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
			parent := s.test(name{e.Package, e.Test[:i]})
			parent.parent = true
			o.tier = laterTier(o.tier, parent.tier)
		}
	case "attr":
		if e.Key == "tier" && slices.Contains(tiers, e.Value) {
			o.tier = laterTier(o.tier, e.Value)
		}
	case "output":
		o.output = append(o.output, e.Output)
	case "pass", "skip":
		o.result = e.Action
		if e.Action == "pass" {
			o.output = nil
		}
		if e.Elapsed >= slow {
			fmt.Fprintf(s.w, "slow %-36s %6.1fs %s\n", e.Package, e.Elapsed, e.Test)
		}
	case "fail":
		o.result = e.Action
		for _, text := range o.output {
			io.WriteString(s.w, text)
		}
		o.output = nil
	}
}

func laterTier(a, b string) string {
	return tiers[max(slices.Index(tiers, a), slices.Index(tiers, b))]
}

// packageEvent tells what a package prints outside of its tests, as a race or
// a panic, and sums it up at its end.
func (s *summary) packageEvent(e event) {
	pkg := s.test(name{e.Package, ""})
	switch e.Action {
	case "output":
		pkg.output = append(pkg.output, e.Output)
	case "fail":
		pkg.result = "fail"
		for _, text := range pkg.output {
			io.WriteString(s.w, text)
		}
		// Tests that were running when a panic or a time-out struck.
		for n, o := range s.tests {
			if n.pkg == e.Package && o.result == "" {
				o.result = "fail"
			}
		}
		s.packageLine("FAIL", e)
	case "pass":
		pkg.result = "pass"
		s.packageLine("ok  ", e)
	}
}

func (s *summary) packageLine(word string, e event) {
	passed := 0
	for n, o := range s.tests {
		if n.pkg == e.Package && n.test != "" && !o.parent && o.result == "pass" {
			passed++
		}
	}
	fmt.Fprintf(s.w, "%s %-36s %6.1fs %5d passed\n", word, e.Package, e.Elapsed, passed)
}

// failures is how many tests failed, and packages of which no test says why.
func (s *summary) failures() int {
	failed := 0
	inPackage := make(map[string]bool)
	for n, o := range s.tests {
		if n.test != "" && o.result == "fail" {
			inPackage[n.pkg] = true
			if !o.parent || !s.childFailed(n) {
				failed++
			}
		}
	}
	for n, o := range s.tests {
		if n.test == "" && o.result == "fail" && !inPackage[n.pkg] {
			failed++
		}
	}
	return failed
}

func (s *summary) childFailed(parent name) bool {
	for n, o := range s.tests {
		if n.pkg == parent.pkg && o.result == "fail" && strings.HasPrefix(n.test, parent.test+"/") {
			return true
		}
	}
	return false
}

// finish prints the end of the run and returns its exit status.
func (s *summary) finish(require string) int {
	passed := make(map[string]int)
	total, skipped := 0, s.skips()
	for n, o := range s.tests {
		if n.test != "" && !o.parent && o.result == "pass" {
			passed[o.tier]++
			total++
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(s.w, "skipped: %s: %s\n", reason, strings.Join(skipped[reason], ", "))
	}
	var missing []string
	for _, tier := range tiers {
		state := "ran"
		if passed[tier] == 0 {
			state = "DID NOT RUN"
			if slices.ContainsFunc(strings.Split(require, ","), func(r string) bool {
				return strings.EqualFold(strings.TrimSpace(r), tier)
			}) {
				missing = append(missing, tier)
			}
		}
		fmt.Fprintf(s.w, "tier %-3s %s: %d passed\n", tier, state, passed[tier])
	}
	for _, tier := range missing {
		fmt.Fprintf(s.w, "FAIL: VMD_TEST_REQUIRE names %s\n", tier)
	}
	failed := s.failures() + len(missing)
	if failed == 0 && s.broken {
		failed = 1
	}
	fmt.Fprintf(s.w, "%d passed, %d failed\n", total, failed)
	if failed > 0 {
		return 1
	}
	return 0
}

// skips returns the skipped tests by reason. A test that ran in the lab as
// vmd/e2e TestPackages/PACKAGE/TEST was not skipped.
func (s *summary) skips() map[string][]string {
	skips := make(map[string][]string)
	for n, o := range s.tests {
		if n.test == "" || o.result != "skip" {
			continue
		}
		folder := strings.TrimPrefix(n.pkg, "vmd/")
		there := s.tests[name{"vmd/e2e", "TestPackages/" + folder + "/" + n.test}]
		if there != nil && there.result == "pass" || strings.HasPrefix(n.test, "TestPackages/") {
			continue
		}
		skips[reason(o.output)] = append(skips[reason(o.output)], folder+" "+n.test)
	}
	for _, names := range skips {
		slices.Sort(names)
	}
	return skips
}

// reason finds the text of t.Skip: the line that begins with a place in a
// file.
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if file, text, ok := strings.Cut(line, ": "); ok && strings.Contains(file, ".go:") {
			return text
		}
	}
	return "no reason given"
}
