// Package sandbox turns promises, in the manner of OpenBSD's pledge(2), into a
// seccomp filter: the system calls that a process still needs are allowed, and
// any other ends it.
//
// The promises are data, in promises.go; Describe prints what they come to.
package sandbox

import (
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A rule allows one system call. With an argument test, only if that argument
// passes; several rules for one call are alternatives.
type rule struct {
	nr   uint32
	name string
	test *argTest
}

// argTest compares the low 32 bits of argument arg, all of them or those of
// mask, with vals. The kernel takes no more of the arguments tested here.
type argTest struct {
	arg  int
	mask uint32
	vals []uint32
}

// envAction lets a developer see what a filter stopped: with VMD_SECCOMP=trap
// the runtime reports where the call came from before the process ends.
const envAction = "VMD_SECCOMP"

// envWithout lists entries to leave out of every filter, by which tests see that
// each is needed and missed: "ppoll,ioctl=0xae80". It makes a filter stricter,
// never wider.
const envWithout = "VMD_SECCOMP_WITHOUT"

const (
	archX86_64 = 0xc000003e // AUDIT_ARCH_X86_64
	x32Bit     = 0x40000000 // __X32_SYSCALL_BIT
)

// Apply installs the filter for promises in all threads of the process. It
// cannot be undone.
func Apply(promises ...string) error {
	rules, err := collect(promises)
	if err != nil {
		return err
	}
	for entry := range strings.SplitSeq(os.Getenv(envWithout), ",") {
		rules = without(rules, entry)
	}
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	if os.Getenv(envAction) == "trap" {
		action = unix.SECCOMP_RET_TRAP
	}
	prog, err := assemble(rules, action)
	if err != nil {
		return err
	}
	return install(prog)
}

// collect lists the rules of promises, calls with tests on their arguments
// first: they are the ones made most often.
func collect(promises []string) ([]rule, error) {
	var rules []rule
	for _, p := range append([]string{"runtime"}, promises...) {
		rs, ok := table[p]
		if !ok {
			return nil, fmt.Errorf("promise %q: no such promise", p)
		}
		rules = append(rules, rs()...)
	}
	sort.SliceStable(rules, func(i, j int) bool { return rank(rules[i]) < rank(rules[j]) })
	return rules, nil
}

// without returns rules less one entry: a call, or one value of its argument.
func without(rules []rule, entry string) []rule {
	name, text, one := strings.Cut(entry, "=")
	val, err := strconv.ParseUint(text, 0, 32)
	var left []rule
	for _, r := range rules {
		switch {
		case r.name != name || one && (err != nil || r.test == nil):
		case !one:
			continue
		default:
			test := *r.test
			test.vals = slices.DeleteFunc(slices.Clone(test.vals), func(v uint32) bool { return v == uint32(val) })
			if len(test.vals) == 0 {
				continue
			}
			r.test = &test
		}
		left = append(left, r)
	}
	return left
}

func rank(r rule) int {
	switch {
	case r.nr == unix.SYS_IOCTL:
		return 0
	case r.test == nil:
		return 1
	}
	return 2
}

// assemble makes a classic BPF program of rules; what none allows is answered
// with action. Layout of struct seccomp_data: nr, arch, instruction pointer,
// six 64-bit arguments (include/uapi/linux/seccomp.h).
func assemble(rules []rule, action uint32) ([]bpf.RawInstruction, error) {
	ins := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: archX86_64, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
	}
	for _, r := range rules {
		body := r.body()
		ins = append(ins, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.nr, SkipFalse: uint8(len(body))})
		ins = append(ins, body...)
	}
	ins = append(ins, bpf.RetConstant{Val: action})
	raw, err := bpf.Assemble(ins)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	return raw, nil
}

// body is what follows once the number matched: it allows the call, or leaves
// the number in the accumulator for the next rule.
func (r rule) body() []bpf.Instruction {
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	if r.test == nil {
		return []bpf.Instruction{allow}
	}
	low := uint32(16 + 8*r.test.arg)
	ins := []bpf.Instruction{bpf.LoadAbsolute{Off: low, Size: 4}}
	if r.test.mask != 0 {
		ins = append(ins, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: r.test.mask})
	}
	for i, v := range r.test.vals {
		// To the allow, over the values after this one and the jump past it.
		ins = append(ins, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(r.test.vals) - i)})
	}
	return append(ins, bpf.Jump{Skip: 1}, allow, bpf.LoadAbsolute{Off: 0, Size: 4})
}

// Describe lists, a line each, what promises allow.
func Describe(promises ...string) (string, error) {
	rules, err := collect(promises)
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	var lines []string
	for _, r := range rules {
		if l := r.String(); !seen[l] {
			seen[l] = true
			lines = append(lines, l)
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n", nil
}

func (r rule) String() string {
	if r.test == nil {
		return r.name
	}
	var v []string
	for _, x := range r.test.vals {
		v = append(v, fmt.Sprintf("%#x", x))
	}
	mask := ""
	if r.test.mask != 0 {
		mask = fmt.Sprintf("&%#x", r.test.mask)
	}
	return fmt.Sprintf("%s arg%d%s = %s", r.name, r.test.arg, mask, strings.Join(v, " | "))
}
