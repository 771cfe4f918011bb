package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vmd/internal/golden"
)

// decide runs the filter for promises on one system call.
func decide(t *testing.T, nr uint32, args [6]uint64, promises ...string) uint32 {
	t.Helper()
	rules, err := collect(promises)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := assemble(rules, unix.SECCOMP_RET_KILL_PROCESS)
	if err != nil {
		t.Fatal(err)
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("filter does not disassemble")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	// The VM loads as a network would; the kernel loads in host order.
	var b bytes.Buffer
	word := func(v uint32) { binary.Write(&b, binary.BigEndian, v) }
	word(nr)
	word(archX86_64)
	word(0)
	word(0)
	for _, a := range args {
		word(uint32(a))
		word(uint32(a >> 32))
	}
	out, err := vm.Run(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return uint32(out)
}

func TestFilterDecides(t *testing.T) {
	const kill, allow = unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_ALLOW
	pid := uint64(os.Getpid())
	tests := []struct {
		name     string
		nr       uint32
		args     [6]uint64
		promises []string
		want     uint32
	}{
		{"read without stdio", unix.SYS_READ, [6]uint64{}, nil, kill},
		{"read with stdio", unix.SYS_READ, [6]uint64{}, []string{"stdio"}, allow},
		{"anonymous memory", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, nil, allow},
		{"memory to execute", unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, nil, kill},
		{"a thread", unix.SYS_CLONE, [6]uint64{threadFlags | unix.CLONE_SETTLS}, nil, allow},
		{"a process", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, nil, kill},
		{"a thread in a namespace", unix.SYS_CLONE, [6]uint64{threadFlags | unix.CLONE_NEWUSER}, nil, kill},
		{"signal a thread of ours", unix.SYS_TGKILL, [6]uint64{pid, 1, 23}, nil, allow},
		{"signal another process", unix.SYS_TGKILL, [6]uint64{pid + 1, 1, 23}, nil, kill},
		{"run a vCPU", unix.SYS_IOCTL, [6]uint64{5, 0xae80}, []string{"kvm"}, allow},
		{"write a vCPU's registers", unix.SYS_IOCTL, [6]uint64{5, 0x5000aea5}, []string{"kvm", "guest"}, kill},
		{"write them when received", unix.SYS_IOCTL, [6]uint64{5, 0x5000aea5}, []string{"kvm", "kvm-receive"}, allow},
		{"encrypt a guest", unix.SYS_IOCTL, [6]uint64{5, 0xc008aeba}, []string{"kvm", "kvm-encrypt"}, allow},
		{"encrypt one that is not to be", unix.SYS_IOCTL, [6]uint64{5, 0xc008aeba}, []string{"kvm", "guest"}, kill},
		{"the SEV firmware", unix.SYS_IOCTL, [6]uint64{5, 0xc0105300}, []string{"stdio", "kvm", "kvm-encrypt", "guest"}, kill},
		{"TIOCSTI", unix.SYS_IOCTL, [6]uint64{0, unix.TIOCSTI}, []string{"kvm", "guest"}, kill},
		{"a second routing socket", unix.SYS_SOCKET, [6]uint64{unix.AF_NETLINK}, []string{"stdio", "tun"}, kill},
		{"a TCP socket for a guest", unix.SYS_SOCKET, [6]uint64{unix.AF_INET}, []string{"stdio", "kvm", "guest"}, kill},
		{"open a file as a guest", unix.SYS_OPENAT, [6]uint64{}, []string{"stdio", "kvm", "guest"}, kill},
		{"x32", x32Bit | unix.SYS_READ, [6]uint64{}, []string{"stdio"}, kill},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := decide(t, tt.nr, tt.args, tt.promises...); got != tt.want {
				t.Errorf("got %#x, want %#x", got, tt.want)
			}
		})
	}
}

func TestWithout(t *testing.T) {
	rules, err := collect([]string{"stdio", "kvm"})
	if err != nil {
		t.Fatal(err)
	}
	describe := func(entry string) string {
		var b strings.Builder
		for _, r := range without(rules, entry) {
			b.WriteString(r.String() + "\n")
		}
		return b.String()
	}
	all := describe("")
	for _, c := range []struct{ entry, gone, stays string }{
		{"sendmsg", "sendmsg\n", "recvmsg\n"},
		{"ioctl=0xae80", "0xae80", "0x4008ae61"},
		{"ioctl", "ioctl", "sendmsg\n"},
	} {
		got := describe(c.entry)
		if strings.Contains(got, c.gone) || !strings.Contains(got, c.stays) || !strings.Contains(all, c.gone) {
			t.Errorf("without %s:\n%s", c.entry, got)
		}
	}
	for _, entry := range []string{"nothing", "ioctl=x", "sendmsg=1", "ioctl=1"} {
		if got := describe(entry); got != all {
			t.Errorf("without %s:\n%s", entry, got)
		}
	}
	if describe("") != all {
		t.Error("the table has changed")
	}
}

func TestUnknownPromise(t *testing.T) {
	if err := Apply("everything"); err == nil {
		t.Error("no error")
	}
}

// What each promise allows is written down, so that a change to it is seen.
func TestDescribe(t *testing.T) {
	for name := range table {
		got, err := Describe(name)
		if err != nil {
			t.Fatal(err)
		}
		got = strings.ReplaceAll(got, "tgkill arg0 = "+hex(os.Getpid()), "tgkill arg0 = self")
		golden.Check(t, filepath.Join("testdata", name+".ok"), got)
	}
}

func hex(n int) string { return fmt.Sprintf("%#x", n) }
