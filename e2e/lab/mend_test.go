package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"vmd/internal/testenv"
)

func TestFindStore(t *testing.T) {
	store := []byte{0x89, 0xb3, 0x54, 0xef, 0xff, 0xff}                                          // mov %esi,-0x10ac(%rbx)
	next := []byte{0x48, 0xc7, 0x83, 0x88, 0x33, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xba, 1, 0, 0, 0} // movq $-1,0x3388(%rbx); mov $1,%edx
	call := func(at, target int) []byte {
		rel := uint32(target - at - 5)
		return []byte{0xe8, byte(rel), byte(rel >> 8), byte(rel >> 16), byte(rel >> 24)}
	}
	const target = 0x1000
	one := slices.Concat(make([]byte, 32), store, next)
	one = append(one, call(len(one), target)...)
	two := slices.Concat(one, make([]byte, 64), store, next)
	two = append(two, call(len(two), target)...)
	other := slices.Concat(make([]byte, 32), []byte{0x89, 0xb1, 0x54, 0xef, 0xff, 0xff}, next)
	other = append(other, call(len(other), target)...)
	bare := append(make([]byte, 32), call(32, target)...)
	for _, c := range []struct {
		name   string
		code   []byte
		target int
		at     int
		ok     bool
	}{
		{"one", one, target, 32, true},
		{"followed by code", append(slices.Clone(one), make([]byte, 100)...), target, 32, true},
		{"of another function", one, target + 1, 0, false},
		{"twice", two, target, 0, false},
		{"by another register", other, target, 0, false},
		{"a call alone", bare, target, 0, false},
		{"a call at the beginning", call(0, target), target, 0, false},
		{"cut", one[:len(one)-1], target, 0, false},
		{"nothing", nil, target, 0, false},
	} {
		at, ok := findStore(c.code, c.target)
		if ok != c.ok || ok && at != c.at {
			t.Errorf("%s: findStore = %d, %t; want %d, %t", c.name, at, ok, c.at, c.ok)
		}
	}
}

// TestMend mends a QEMU that runs nothing.
func TestMend(t *testing.T) {
	qemu := testenv.Tool(t, "qemu-system-x86_64")
	addr, store, err := strayStore(qemu)
	if errors.Is(err, errNoStore) {
		t.Skipf("%s: %v: not one that needs to be mended, or that can be", qemu, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(qemu, "-S", "-machine", "none", "-nodefaults", "-display", "none", "-monitor", "none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := mend(cmd.Process.Pid, qemu); err != nil {
		t.Fatalf("mend: %v", err)
	}
	base, err := loadedAt(cmd.Process.Pid, qemu)
	if err != nil {
		t.Fatal(err)
	}
	m, err := os.Open(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	got := make([]byte, storeSize)
	if _, err := m.ReadAt(got, int64(base+addr)); err != nil || !bytes.Equal(got, storeNop) {
		t.Errorf("in memory: % x, %v; want % x instead of % x", got, err, storeNop, store)
	}
	if err := mend(cmd.Process.Pid, qemu); !errors.Is(err, errNoStore) {
		t.Errorf("mend, again: %v, want %v", err, errNoStore)
	}
}
