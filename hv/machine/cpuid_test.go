package machine

import (
	"slices"
	"testing"

	"vmd/hv/kvm"
)

// leaf returns one leaf of what a guest with these CPUs gets from host.
func leaf(t *testing.T, host kvm.CPUIDEntry, top cpuTopology) kvm.CPUIDEntry {
	t.Helper()
	for _, e := range guestCPUID([]kvm.CPUIDEntry{host}, top, kvmOnly) {
		if e.Function == host.Function && e.Index == host.Index {
			return e
		}
	}
	t.Fatalf("no leaf %#x", host.Function)
	return host
}

const ones = 0xffffffff

func TestCPUIDLeaves(t *testing.T) {
	top := cpuTopology{id: 5, count: 6, tscKHz: 2_500_000, deadline: true}
	for _, c := range []struct {
		name                   string
		host                   kvm.CPUIDEntry
		eax, ebx, ecx, edx     uint32
		eaxM, ebxM, ecxM, edxM uint32 // bits that are looked at
	}{
		{name: "APIC id, count, CLFLUSH kept", host: kvm.CPUIDEntry{Function: 1, EBX: 0xffff0842}, ebx: 5<<24 | 6<<16 | 0x0842, ebxM: ones},
		{name: "hypervisor and deadline timer", host: kvm.CPUIDEntry{Function: 1, ECX: 1 << 21}, ecx: 1<<31 | 1<<24 | 1<<21, ecxM: ones},
		{name: "no VMX, no MONITOR", host: kvm.CPUIDEntry{Function: 1, ECX: ones}, ecxM: 1<<5 | 1<<3},
		{name: "HTT", host: kvm.CPUIDEntry{Function: 1}, edx: 1 << 28, edxM: 1 << 28},
		{name: "private cache", host: kvm.CPUIDEntry{Function: 4, EAX: ones&^0xff | 1<<5 | 1}, eax: 5<<26 | 1<<5 | 1, eaxM: ones &^ 0x3f00},
		{name: "shared cache", host: kvm.CPUIDEntry{Function: 4, EAX: 3<<5 | 3}, eax: 5<<26 | 5<<14 | 3<<5 | 3, eaxM: ones},
		{name: "no more caches", host: kvm.CPUIDEntry{Function: 4, Index: 4}, eaxM: ones},
		{name: "AMD's shared cache", host: kvm.CPUIDEntry{Function: 0x8000001d, EAX: 3<<5 | 3}, eax: 5<<14 | 3<<5 | 3, eaxM: ones},
		{name: "MWAIT", host: kvm.CPUIDEntry{Function: 5, EAX: 64, ECX: 3}, eaxM: ones, ecxM: ones},
		{name: "ARAT alone", host: kvm.CPUIDEntry{Function: 6, EAX: ones, EBX: ones, ECX: ones}, eax: 4, eaxM: ones, ebxM: ones, ecxM: ones},
		{name: "no PMU", host: kvm.CPUIDEntry{Function: 0xa, EAX: 0x08300802, EDX: 0x603}, eaxM: ones, edxM: ones},
		{name: "thread level", host: kvm.CPUIDEntry{Function: 0xb, Index: 0}, ebx: 1, ecx: 1 << 8, edx: 5, eaxM: ones, ebxM: ones, ecxM: ones, edxM: ones},
		{name: "core level", host: kvm.CPUIDEntry{Function: 0xb, Index: 1}, eax: 3, ebx: 6, ecx: 2<<8 | 1, edx: 5, eaxM: ones, ebxM: ones, ecxM: ones, edxM: ones},
		{name: "no third level", host: kvm.CPUIDEntry{Function: 0xb, Index: 2, EBX: 9, ECX: ones}, ecx: 2, edx: 5, ebxM: ones, ecxM: ones, edxM: ones},
		{name: "highest KVM leaf", host: kvm.CPUIDEntry{Function: leafKVM, EAX: leafKVMFlags, EBX: 0x4b4d564b}, eax: leafKVMTiming, ebx: 0x4b4d564b, eaxM: ones, ebxM: ones},
		{name: "no SVM", host: kvm.CPUIDEntry{Function: 0x80000001, ECX: ones}, ecx: 1 << 1, ecxM: 1<<2 | 1<<1},
		{name: "brand of our own", host: kvm.CPUIDEntry{Function: 0x80000002}, eax: 'v' | 'm'<<8 | 'd'<<16 | ' '<<24, eaxM: ones},
		{name: "brand of the host", host: kvm.CPUIDEntry{Function: 0x80000002, EAX: 1}, eax: 1, eaxM: ones},
		{name: "cores", host: kvm.CPUIDEntry{Function: 0x80000008, EAX: 0x3030, ECX: 0x703f}, eax: 0x3030, ecx: 3<<12 | 5, eaxM: ones, ecxM: ones},
		{name: "core id", host: kvm.CPUIDEntry{Function: 0x8000001e, EAX: 1, EBX: 0x100, ECX: 0x700}, eax: 5, ebx: 5, eaxM: ones, ebxM: ones, ecxM: ones},
		{name: "no SEV", host: kvm.CPUIDEntry{Function: 0x8000001f, EAX: ones}, eaxM: ones},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := leaf(t, c.host, top)
			for _, r := range []struct {
				name            string
				got, want, mask uint32
			}{{"EAX", e.EAX, c.eax, c.eaxM}, {"EBX", e.EBX, c.ebx, c.ebxM}, {"ECX", e.ECX, c.ecx, c.ecxM}, {"EDX", e.EDX, c.edx, c.edxM}} {
				if r.got&r.mask != r.want {
					t.Errorf("%s %#x, want %#x in %#x", r.name, r.got, r.want, r.mask)
				}
			}
		})
	}
}

func TestCPUIDOfOneCPU(t *testing.T) {
	top := cpuTopology{count: 1}
	e := leaf(t, kvm.CPUIDEntry{Function: 1, EDX: 1 << 28, ECX: 1 << 24}, top)
	if e.EDX&(1<<28) != 0 {
		t.Error("HTT with one CPU")
	}
	if e = leaf(t, kvm.CPUIDEntry{Function: 0xb, Index: 1}, top); e.EAX != 0 || e.EBX != 1 {
		t.Errorf("core level %+v", e)
	}
}

func TestCPUIDTiming(t *testing.T) {
	host := []kvm.CPUIDEntry{{Function: leafKVM}, {Function: leafKVMFlags, EAX: 3}, {Function: leafKVMTiming, EAX: 1}, {Function: 0x80000026}}
	got := guestCPUID(host, cpuTopology{count: 1, tscKHz: 2_500_000}, kvmOnly)
	if len(got) != 3 {
		t.Fatalf("leaves %+v", got)
	}
	if e := got[2]; e.Function != leafKVMTiming || e.EAX != 2_500_000 || e.EBX != busKHz {
		t.Errorf("timing leaf %+v", e)
	}
	if got[1] != host[1] {
		t.Errorf("feature leaf %+v", got[1])
	}
	if host[0].EAX != 0 {
		t.Error("the host's list was changed")
	}
}

// The first signature is OpenBSD's, and KVM's leaves have moved as a whole.
func TestCPUIDWithTwoSignatures(t *testing.T) {
	host := []kvm.CPUIDEntry{
		{Function: 0, EAX: 0xd}, {Function: leafKVM, EBX: 0x4b4d564b, ECX: 0x564b4d56, EDX: 0x4d}, {Function: leafKVMFlags, EAX: 1 << 24},
	}
	got := guestCPUID(host, cpuTopology{count: 1, tscKHz: 2_500_000}, openBSDFirst)
	want := []kvm.CPUIDEntry{
		{Function: 0x40000000, EAX: 0x40000001, EBX: 'O' | 'p'<<8 | 'e'<<16 | 'n'<<24, ECX: 'B' | 'S'<<8 | 'D'<<16 | 'V'<<24, EDX: 'M' | 'M'<<8 | '5'<<16 | '8'<<24},
		{Function: 0, EAX: 0xd},
		{Function: 0x40000100, EAX: 0x40000110, EBX: 0x4b4d564b, ECX: 0x564b4d56, EDX: 0x4d},
		{Function: 0x40000101, EAX: 1 << 24},
		{Function: 0x40000110, EAX: 2_500_000, EBX: busKHz},
	}
	if !slices.Equal(got, want) {
		t.Errorf("leaves %+v\nwant   %+v", got, want)
	}
}

func TestPhysBits(t *testing.T) {
	if n := physBits([]kvm.CPUIDEntry{{Function: 0x80000008, EAX: 0x3028}}); n != 40 {
		t.Errorf("%d bits, want 40", n)
	}
	if n := physBits(nil); n != 36 {
		t.Errorf("%d bits without the leaf, want 36", n)
	}
}
