package kvm

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirtyLog has a guest write to two pages, and looks with and without the
// manual log.
func TestDirtyLog(t *testing.T) {
	for _, manual := range []bool{false, true} {
		g := newGuest(t,
			0xfe, 0x06, 0x00, 0x20, // inc byte [0x2000]
			0xfe, 0x06, 0x10, 0x30, // inc byte [0x3010]
			0xe6, 0x80, // out 0x80, al
			0xeb, 0xf4, // jmp to the start
		)
		if manual && !g.vm.ManualDirtyLog() {
			t.Fatal("no manual log")
		}
		log := make([]uint64, len(g.ram)/4096/64)
		if err := g.vm.DirtyLog(0, log); !errors.Is(err, unix.ENOENT) {
			t.Errorf("log of a slot that has none: %v", err)
		}
		if err := g.vm.SetMemory(0, 0, g.ram, KVM_MEM_LOG_DIRTY_PAGES); err != nil {
			t.Fatal(err)
		}
		clean := func() {
			t.Helper()
			if err := g.vm.DirtyLog(0, log); err != nil {
				t.Fatal(err)
			}
			if manual {
				if err := g.vm.ClearDirtyLog(0, 0, len(g.ram)/4096, log); err != nil {
					t.Fatal(err)
				}
			}
		}
		clean()
		if manual && log[0] != ^uint64(0) {
			t.Errorf("a manual log begins with %#x", log[0])
		}
		for range 2 {
			g.want(t, KVM_EXIT_IO)
			clean()
			// A KVM may count the page of code too, which it has made
			// writable when the guest fetched from it.
			if log[0]&^(1<<1) != 1<<2|1<<3 {
				t.Errorf("manual %v: pages %#x written to, want 2 and 3", manual, log[0])
			}
		}
		clean()
		if log[0] != 0 {
			t.Errorf("manual %v: pages %#x written to by a guest that stands still", manual, log[0])
		}
		if err := g.vm.SetMemory(0, 0, g.ram, 0); err != nil {
			t.Error(err)
		}
	}
}

func TestDirtyLogRefuses(t *testing.T) {
	g := newGuest(t)
	if err := g.vm.DirtyLog(0, nil); err == nil {
		t.Error("a log into nothing")
	}
	if err := g.vm.ClearDirtyLog(0, 0, 65, make([]uint64, 1)); err == nil {
		t.Error("65 pages from one word")
	}
	if err := g.vm.ClearDirtyLog(0, 0, 0, nil); err == nil {
		t.Error("no pages")
	}
}

// TestStateOfOneFitsAnother reads all of a guest in the middle of a loop, and has
// a second one go on from there.
func TestStateOfOneFitsAnother(t *testing.T) {
	g := newGuest(t,
		0x40,       // inc ax
		0xe7, 0x80, // out 0x80, ax
		0xeb, 0xfb, // jmp to the start
	)
	for range 5 {
		g.want(t, KVM_EXIT_IO)
	}
	g.cpu.Interrupt() // completes what the last exit began
	if r, err := g.cpu.Run(); r != 0 || err != nil {
		t.Fatal(r, err)
	}
	g.cpu.Clear()
	h := newGuest(t)
	copy(h.ram, g.ram)
	moveVM(t, g.vm, h.vm)
	moveVCPU(t, g, h)
	for n := uint8(6); n < 9; n++ {
		h.want(t, KVM_EXIT_IO)
		if x := h.cpu.IO(); x.Data[0] != n {
			t.Errorf("counted %d, want %d", x.Data[0], n)
		}
	}
}

func moveVM(t *testing.T, from, to *VM) {
	t.Helper()
	for id := range uint32(3) {
		c, err := from.IRQChip(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.SetIRQChip(c); err != nil {
			t.Fatal(err)
		}
		if again, err := to.IRQChip(id); err != nil || again.Chip != c.Chip {
			t.Errorf("chip %d: %v\n%x\n%x", id, err, again.Chip, c.Chip)
		}
	}
	p, err := from.PIT()
	if err != nil {
		t.Fatal(err)
	}
	if err := to.SetPIT(p); err != nil {
		t.Fatal(err)
	}
	if _, err := from.IRQChip(3); err == nil {
		t.Error("a fourth interrupt controller")
	}
}

// moved reads with get and writes with set.
func moved[T any](t *testing.T, get func() (T, error), set func(T) error) {
	t.Helper()
	v, err := get()
	if err != nil {
		t.Fatal(err)
	}
	if err := set(v); err != nil {
		t.Fatal(err)
	}
}

func moveVCPU(t *testing.T, from, to *guest) {
	t.Helper()
	a, b := from.cpu, to.cpu
	moved(t, a.MPState, b.SetMPState)
	moved(t, a.Regs, b.SetRegs)
	moved(t, a.Sregs, b.SetSregs)
	size := from.vm.XSAVESize()
	moved(t, func() ([]byte, error) { return a.XSAVE(size) }, func(s []byte) error { return b.SetXSAVE(s, size) })
	x, err := a.XCRs()
	if err != nil {
		t.Fatal(err)
	}
	if x.Nr > 0 {
		if err := b.SetXCRs(x); err != nil {
			t.Fatal(err)
		}
	}
	moved(t, a.DebugRegs, b.SetDebugRegs)
	moved(t, a.LAPIC, b.SetLAPIC)
	moved(t, a.Events, b.SetEvents)
	if err := b.SetXSAVE(make([]byte, size+1), size); err == nil {
		t.Error("registers of another size were taken")
	}
}

func TestReadableMSRs(t *testing.T) {
	g := newGuest(t)
	list, err := g.sys.MSRIndices()
	if err != nil || len(list) < 20 {
		t.Fatalf("%d registers, %v", len(list), err)
	}
	const tsc, nobodys = 0x10, 0x4b564dff
	for range 3 { // three in a row that are not there, and at both ends
		list = append(append([]uint32{nobodys}, list...), nobodys)
	}
	for range 200 {
		list = append(list, tsc) // more than fits a call
	}
	got, err := g.cpu.ReadableMSRs(list)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range got {
		if r.Index == nobodys {
			t.Error("a register that nobody has was read")
		}
		if r.Index == tsc {
			n++
		}
	}
	if n < 200 || got[len(got)-1].Data == 0 {
		t.Errorf("the TSC was read %d times, at last as %d", n, got[len(got)-1].Data)
	}
}
