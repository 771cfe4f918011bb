package kvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/mem"
	"vmd/internal/testenv"
)

// guest is a VM with 2 MiB of memory and one vCPU in real mode.
type guest struct {
	sys *System
	vm  *VM
	ram []byte
	cpu *VCPU
}

// codeAt is where guests start.
const codeAt = 0x1000

// newGuest makes a guest that runs code.
func newGuest(t *testing.T, code ...byte) *guest {
	t.Helper()
	testenv.KVM(t)
	sys, err := OpenDevice("/dev/kvm")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mem.Alloc(mem.Range{Base: 0, Size: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := sys.CreateVM(0xfffbd000, 0xfffbc000)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{sys: sys, vm: vm, ram: m.Regions()[0].Bytes}
	if err := vm.SetMemory(0, 0, g.ram, 0); err != nil {
		t.Fatal(err)
	}
	if g.cpu, err = vm.CreateVCPU(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, err := range []error{g.cpu.Close(), vm.Close(), m.Close(), sys.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	copy(g.ram[codeAt:], code)
	g.startAt(t, codeAt)
	return g
}

// startAt points the vCPU at a real-mode address.
func (g *guest) startAt(t *testing.T, ip uint64) {
	t.Helper()
	s, err := g.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CS.Base, s.CS.Selector = 0, 0
	if err := g.cpu.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	if err := g.cpu.SetRegs(Regs{RIP: ip, RSP: 0x8000, RFLAGS: 2}); err != nil {
		t.Fatal(err)
	}
}

// run enters the guest until something but a signal comes out.
func (g *guest) run(t *testing.T) ExitReason {
	t.Helper()
	for {
		r, err := g.cpu.Run()
		if err != nil {
			t.Fatal(err)
		}
		if r != 0 {
			return r
		}
	}
}

// want runs the guest and checks why it comes out.
func (g *guest) want(t *testing.T, want ExitReason) {
	t.Helper()
	if got := g.run(t); got != want {
		r, _ := g.cpu.Regs()
		t.Fatalf("exit %d at rip %#x, want %d", got, r.RIP, want)
	}
}

func TestPortWrite(t *testing.T) {
	g := newGuest(t,
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xb0, 'A', // mov al, 'A'
		0xee,       // out dx, al
		0xb8, 2, 1, // mov ax, 0x102
		0xef, // out dx, ax
	)
	g.want(t, KVM_EXIT_IO)
	if x := g.cpu.IO(); !x.Out || x.Port != 0x3f8 || x.Size != 1 || x.Count != 1 || !bytes.Equal(x.Data, []byte{'A'}) {
		t.Errorf("first access: %+v", x)
	}
	g.want(t, KVM_EXIT_IO)
	if x := g.cpu.IO(); !x.Out || x.Size != 2 || !bytes.Equal(x.Data, []byte{2, 1}) {
		t.Errorf("second access: %+v", x)
	}
}

func TestPortReadReachesTheGuest(t *testing.T) {
	g := newGuest(t,
		0xe5, 0x70, // in ax, 0x70
		0xe7, 0x80, // out 0x80, ax
	)
	g.want(t, KVM_EXIT_IO)
	x := g.cpu.IO()
	if x.Out || x.Port != 0x70 || x.Size != 2 {
		t.Fatalf("read: %+v", x)
	}
	copy(x.Data, []byte{0x34, 0x12})
	g.want(t, KVM_EXIT_IO)
	if x := g.cpu.IO(); !x.Out || !bytes.Equal(x.Data, []byte{0x34, 0x12}) {
		t.Errorf("write back: %+v", x)
	}
}

func TestStringOutputComesInOneOrMoreExits(t *testing.T) {
	g := newGuest(t,
		0xba, 0xe9, 0x00, // mov dx, 0xe9
		0xbe, 0x00, 0x20, // mov si, 0x2000
		0xb9, 5, 0, // mov cx, 5
		0xf3, 0x6e, // rep outsb
		0xe6, 0x80, // out 0x80, al
	)
	copy(g.ram[0x2000:], "hello")
	var got []byte
	for {
		g.want(t, KVM_EXIT_IO)
		x := g.cpu.IO()
		if x.Port == 0x80 {
			break
		}
		if len(x.Data) != x.Size*x.Count {
			t.Fatalf("%d items of %d bytes in %d bytes", x.Count, x.Size, len(x.Data))
		}
		got = append(got, x.Data...)
	}
	if string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestMemoryAccessOutsideSlots(t *testing.T) {
	g := newGuest(t,
		0xb8, 0x00, 0xf0, // mov ax, 0xf000
		0x8e, 0xd8, // mov ds, ax
		0xa1, 0x00, 0x00, // mov ax, [0]
		0xa3, 0x02, 0x00, // mov [2], ax
	)
	// Take the memory away behind 0xf0000 by making a smaller slot.
	if err := g.vm.SetMemory(0, 0, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.SetMemory(0, 0, g.ram[:0xf0000], 0); err != nil {
		t.Fatal(err)
	}
	g.want(t, KVM_EXIT_MMIO)
	addr, write, data := g.cpu.MMIO()
	if addr != 0xf0000 || write || len(data) != 2 {
		t.Fatalf("read %#x, write %v, %d bytes", addr, write, len(data))
	}
	binary.LittleEndian.PutUint16(data, 0xbeef)
	g.want(t, KVM_EXIT_MMIO)
	addr, write, data = g.cpu.MMIO()
	if addr != 0xf0002 || !write || binary.LittleEndian.Uint16(data) != 0xbeef {
		t.Fatalf("write at %#x (%v) of % x", addr, write, data)
	}
}

func TestReadOnlyMemoryWriteComesOut(t *testing.T) {
	g := newGuest(t,
		0xb8, 0x00, 0x80, // mov ax, 0x8000
		0x8e, 0xd8, // mov ds, ax
		0xa0, 0x00, 0x00, // mov al, [0]
		0xa2, 0x01, 0x00, // mov [1], al
	)
	if g.vm.Check(KVM_CAP_READONLY_MEM) == 0 {
		t.Skip("KVM without KVM_CAP_READONLY_MEM")
	}
	rom, err := mem.Alloc(mem.Range{Size: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer rom.Close()
	b := rom.Regions()[0].Bytes
	b[0] = 0x5a
	if err := g.vm.SetMemory(0, 0, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.SetMemory(0, 0, g.ram[:0x80000], 0); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.SetMemory(1, 0x80000, b, KVM_MEM_READONLY); err != nil {
		t.Fatal(err)
	}
	g.want(t, KVM_EXIT_MMIO)
	if addr, write, data := g.cpu.MMIO(); addr != 0x80001 || !write || data[0] != 0x5a {
		t.Errorf("write at %#x (%v) of % x", addr, write, data)
	}
	if b[1] != 0 {
		t.Error("the guest changed read-only memory")
	}
}

func TestInterruptEndsRunUntilClear(t *testing.T) {
	g := newGuest(t,
		0xe6, 0x80, // out 0x80, al
	)
	g.cpu.Interrupt()
	for range 3 {
		if r, err := g.cpu.Run(); r != 0 || err != nil {
			t.Fatalf("interrupted vCPU: exit %d, %v", r, err)
		}
	}
	g.cpu.Clear()
	g.want(t, KVM_EXIT_IO)
}

func TestTripleFaultIsShutdown(t *testing.T) {
	g := newGuest(t,
		0x0f, 0x0b, // ud2
	)
	s, err := g.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	// Protected mode without an IDT: no exception can be delivered, and the
	// failure to do so neither.
	code := Segment{Limit: 0xffffffff, Selector: 8, Type: 11, Present: 1, DB: 1, S: 1, G: 1}
	data := code
	data.Selector, data.Type = 16, 3
	s.CS, s.DS, s.ES, s.SS = code, data, data, data
	s.IDT = Dtable{}
	s.CR0 |= 1
	if err := g.cpu.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	g.want(t, KVM_EXIT_SHUTDOWN)
}

func TestInternalErrorSaysWhat(t *testing.T) {
	// Code outside memory cannot be fetched, so KVM cannot emulate it.
	g := newGuest(t)
	if err := g.vm.SetMemory(0, 0, nil, 0); err != nil {
		t.Fatal(err)
	}
	g.want(t, KVM_EXIT_INTERNAL_ERROR)
	e := g.cpu.InternalError()
	if e.Suberror != 1 {
		t.Errorf("suberror %d, want 1 (emulation)", e.Suberror)
	}
	if len(e.Error()) < len("KVM: ") {
		t.Errorf("error %q", e)
	}
}

func TestInternalErrorCode(t *testing.T) {
	g := newGuest(t)
	x := exitAs[internalExit](g.cpu.run)
	*x = internalExit{Suberror: 1, Ndata: 4}
	x.Data[0] = 1 // flags: instruction bytes follow
	x.Data[1] = 0x0706050403020109
	x.Data[2] = 0x0f0e0d0c0b0a0908
	if got, want := g.cpu.InternalError().Code, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9}; !bytes.Equal(got, want) {
		t.Errorf("code % x, want % x", got, want)
	}
	x.Data[1] |= 0xff // more bytes than there are
	if got := len(g.cpu.InternalError().Code); got != 15 {
		t.Errorf("%d bytes of code, want 15", got)
	}
	*x = internalExit{Suberror: 3, Ndata: 1000}
	if e := g.cpu.InternalError(); len(e.Data) != 16 || e.Code != nil {
		t.Errorf("%+v", e)
	}
}

func TestIOEventFD(t *testing.T) {
	g := newGuest(t,
		0xba, 0x00, 0x50, // mov dx, 0x5000
		0xb8, 7, 0, // mov ax, 7
		0xef,       // out dx, ax: matches
		0xb8, 8, 0, // mov ax, 8
		0xef, // out dx, ax: does not
	)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	e := IOEvent{Addr: 0x5000, Port: true, Size: 2, Match: true, Data: 7, FD: fd}
	if err := g.vm.AddIOEventFD(e); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.AddIOEventFD(e); !errors.Is(err, unix.EEXIST) {
		t.Errorf("same event twice: %v, want EEXIST", err)
	}
	g.want(t, KVM_EXIT_IO)
	if x := g.cpu.IO(); x.Port != 0x5000 || x.Data[0] != 8 {
		t.Errorf("exit for %+v", x)
	}
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err != nil || b[0] != 1 {
		t.Errorf("eventfd: % x, %v", b, err)
	}
	if err := g.vm.RemoveIOEventFD(e); err != nil {
		t.Error(err)
	}
	if err := g.vm.RemoveIOEventFD(e); err == nil {
		t.Error("removed an event twice")
	}
}

func TestRegisters(t *testing.T) {
	g := newGuest(t)
	want := Regs{RAX: 1, RBX: 2, R15: 15, RIP: codeAt, RSP: 0x8000, RFLAGS: 2}
	if err := g.cpu.SetRegs(want); err != nil {
		t.Fatal(err)
	}
	if got, err := g.cpu.Regs(); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if s, err := g.cpu.MPState(); err != nil || s != KVM_MP_STATE_RUNNABLE {
		t.Errorf("first vCPU in state %d, %v", s, err)
	}
	if err := g.cpu.SetMPState(KVM_MP_STATE_HALTED); err != nil {
		t.Error(err)
	}
	if s, _ := g.cpu.MPState(); s != KVM_MP_STATE_HALTED {
		t.Errorf("state %d after it was set to halted", s)
	}
	if e, err := g.cpu.Events(); err != nil {
		t.Error(err)
	} else if err := g.cpu.SetEvents(e); err != nil {
		t.Error(err)
	}
	if l, err := g.cpu.LAPIC(); err != nil {
		t.Error(err)
	} else if err := g.cpu.SetLAPIC(l); err != nil {
		t.Error(err)
	}
	if khz, err := g.cpu.TSCKHz(); err != nil || khz < 1000 {
		t.Errorf("TSC %d kHz, %v", khz, err)
	}
	if err := g.cpu.NMI(); err != nil {
		t.Error(err)
	}
	if gpa, ok := g.cpu.Translate(0x1234); !ok || gpa != 0x1234 {
		t.Errorf("real-mode address translated to %#x, %v", gpa, ok)
	}
	g.cpu.ClockPaused() // without a kvmclock: no complaint
}

func TestCPUIDAndMSRs(t *testing.T) {
	g := newGuest(t)
	c, err := g.sys.SupportedCPUID()
	if err != nil || len(c) == 0 {
		t.Fatalf("%d leaves, %v", len(c), err)
	}
	if err := g.cpu.SetCPUID(c); err != nil {
		t.Error(err)
	}
	if err := g.cpu.SetCPUID(make([]CPUIDEntry, maxCPUID+1)); err == nil {
		t.Error("too many leaves were taken")
	}
	const mtrrDefType, noSuch = 0x2ff, 0xdeadbeef
	if err := g.cpu.SetMSRs([]MSR{{Index: mtrrDefType, Data: 0x806}}); err != nil {
		t.Error(err)
	}
	l := []MSR{{Index: mtrrDefType}}
	if err := g.cpu.MSRs(l); err != nil || l[0].Data != 0x806 {
		t.Errorf("MTRRdefType %#x, %v", l[0].Data, err)
	}
	if err := g.cpu.SetMSRs([]MSR{{Index: noSuch}}); err == nil {
		t.Error("a register that is not there was set")
	}
	if err := g.cpu.MSRs(make([]MSR, maxMSRs+1)); err == nil {
		t.Error("too many registers were taken")
	}
}

func TestRouting(t *testing.T) {
	g := newGuest(t)
	pins := g.vm.routing.Nr
	if pins != 15+15+8 {
		t.Errorf("%d routes for the pins, want 38", pins)
	}
	if err := g.vm.SetMSI(FirstMSI-1, 0xfee00000, 0x40); err == nil {
		t.Error("a pin was taken for a message")
	}
	for gsi := uint32(FirstMSI); gsi < FirstMSI+maxRoutes-pins; gsi++ {
		g.vm.routing.Entries[g.vm.routing.Nr] = routingEntry{GSI: gsi, Type: KVM_IRQ_ROUTING_MSI, U: [8]uint32{0xfee00000, 0, gsi & 0xff}}
		g.vm.routing.Nr++
	}
	if err := g.vm.setRouting(); err != nil {
		t.Errorf("a full table: %v", err)
	}
	if err := g.vm.SetMSI(FirstMSI+maxRoutes-pins, 0xfee00000, 0x40); err == nil {
		t.Error("one route too many was taken")
	}
	if err := g.vm.SetMSI(FirstMSI, 0xfee01000, 0x41); err != nil {
		t.Errorf("change a message: %v", err)
	}
	if n := testing.AllocsPerRun(10, func() { g.vm.SetMSI(FirstMSI, 0xfee01000, 0x41) }); n != 0 {
		t.Errorf("%v allocations for a message that is set already", n)
	}
	if err := g.vm.ClearMSI(FirstMSI); err != nil {
		t.Error(err)
	}
	if err := g.vm.ClearMSI(FirstMSI); err != nil {
		t.Errorf("clear a message that is not there: %v", err)
	}
	if g.vm.routing.msi(FirstMSI) >= 0 || g.vm.routing.Nr != maxRoutes-1 {
		t.Errorf("%d routes after one was cleared", g.vm.routing.Nr)
	}
}

func TestPin(t *testing.T) {
	g := newGuest(t)
	p := g.vm.Pin(10)
	if n := testing.AllocsPerRun(10, func() { p.Set(true); p.Set(false) }); n != 0 {
		t.Errorf("%v allocations to drive a pin", n)
	}
	if err := p.Set(true); err != nil {
		t.Error(err)
	}
}

func TestIRQFD(t *testing.T) {
	g := newGuest(t)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := g.vm.AddIRQFD(fd, FirstMSI); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.AddIRQFD(fd, FirstMSI); err == nil {
		t.Error("one eventfd was taken twice")
	}
	if err := g.vm.RemoveIRQFD(fd, FirstMSI); err != nil {
		t.Error(err)
	}
}

func TestPortLoopDoesNotAllocate(t *testing.T) {
	g := newGuest(t,
		0xe6, 0x80, // out 0x80, al
		0xeb, 0xfc, // jmp back
	)
	if n := testing.AllocsPerRun(100, func() {
		if r, _ := g.cpu.Run(); r == KVM_EXIT_IO {
			_ = g.cpu.IO()
		}
	}); n != 0 {
		t.Errorf("%v allocations an exit", n)
	}
}

func TestOpenRefusesWhatIsNotKVM(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Open(int(f.Fd())); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("/dev/null: %v, want ENOTTY", err)
	}
	if _, err := OpenDevice("/nonexistent"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing device: %v", err)
	}
}

func TestMissingErrorNamesCapabilities(t *testing.T) {
	e := &MissingError{Caps: []string{"KVM_CAP_IRQFD", "KVM_CAP_PIT2"}}
	if got, want := e.Error(), "this KVM lacks [KVM_CAP_IRQFD KVM_CAP_PIT2]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
