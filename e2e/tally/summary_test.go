package main

import (
	"bytes"
	"strings"
	"testing"
)

// feed sums up events that are written as go test -json writes them.
func feed(t *testing.T, require string, lines ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	s := newSummary(&out)
	if err := s.read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
		t.Fatal(err)
	}
	status := s.finish(require)
	return out.String(), status
}

const (
	runA  = `{"Action":"run","Package":"vmd/p","Test":"TestA"}`
	passA = `{"Action":"pass","Package":"vmd/p","Test":"TestA"}`
	failA = `{"Action":"fail","Package":"vmd/p","Test":"TestA"}`
	outA  = `{"Action":"output","Package":"vmd/p","Test":"TestA","Output":"    a_test.go:3: got 1\n"}`
	okP   = `{"Action":"pass","Package":"vmd/p","Elapsed":0.5}`
	failP = `{"Action":"fail","Package":"vmd/p","Elapsed":0.5}`
)

func TestSummary(t *testing.T) {
	for _, tt := range []struct {
		name    string
		require string
		lines   []string
		want    []string // in the output
		last    string
		status  int
	}{
		{name: "pass", require: "T0", lines: []string{runA, outA, passA, okP},
			want: []string{"ok   vmd/p", "tier T0  ran: 1 passed", "tier T3  DID NOT RUN"}, last: "1 passed, 0 failed"},
		{name: "fail shows its output", lines: []string{runA, outA, failA, failP},
			want: []string{"a_test.go:3: got 1", "FAIL vmd/p"}, last: "0 passed, 1 failed", status: 1},
		{name: "required tier", require: "T0, t2", lines: []string{runA, passA, okP},
			want: []string{"FAIL: VMD_TEST_REQUIRE names T2"}, last: "1 passed, 1 failed", status: 1},
		{name: "tier by attribute", require: "T2", lines: []string{runA,
			`{"Action":"attr","Package":"vmd/p","Test":"TestA","Key":"tier","Value":"T2"}`, passA, okP},
			want: []string{"tier T2  ran: 1 passed", "tier T0  DID NOT RUN: 0"}, last: "1 passed, 0 failed"},
		{name: "subtests count, not their parent", lines: []string{runA,
			`{"Action":"attr","Package":"vmd/p","Test":"TestA","Key":"tier","Value":"T1L"}`,
			`{"Action":"run","Package":"vmd/p","Test":"TestA/x"}`, `{"Action":"pass","Package":"vmd/p","Test":"TestA/x"}`,
			`{"Action":"run","Package":"vmd/p","Test":"TestA/y"}`, `{"Action":"pass","Package":"vmd/p","Test":"TestA/y"}`, passA, okP},
			want: []string{"tier T1L ran: 2 passed"}, last: "2 passed, 0 failed"},
		{name: "skip with its reason", lines: []string{runA, outA, `{"Action":"skip","Package":"vmd/p","Test":"TestA"}`, okP},
			want: []string{"skipped: got 1: p TestA"}, last: "0 passed, 0 failed"},
		{name: "skipped here, ran in the lab", lines: []string{runA, outA, `{"Action":"skip","Package":"vmd/p","Test":"TestA"}`, okP,
			`{"Action":"run","Package":"vmd/e2e","Test":"TestPackages/p/TestA"}`, `{"Action":"pass","Package":"vmd/e2e","Test":"TestPackages/p/TestA"}`},
			last: "1 passed, 0 failed"},
		{name: "panic", lines: []string{runA, failP}, last: "0 passed, 1 failed", status: 1},
		{name: "does not build", lines: []string{`{"Action":"build-output","ImportPath":"vmd/p","Output":"p.go:1: no\n"}`,
			`{"Action":"build-fail","ImportPath":"vmd/p"}`, failP}, want: []string{"p.go:1: no"}, last: "0 passed, 1 failed", status: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, status := feed(t, tt.require, tt.lines...)
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("output lacks %q", want)
				}
			}
			if !strings.HasSuffix(out, "\n"+tt.last+"\n") {
				t.Errorf("output does not end with %q", tt.last)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	flags, groups := split([]string{"-count=1", "--", "a", "b", "--", "c", "--"})
	if len(flags) != 1 || len(groups) != 2 || groups[0][1] != "b" || groups[1][0] != "c" {
		t.Errorf("split = %q, %q", flags, groups)
	}
}
