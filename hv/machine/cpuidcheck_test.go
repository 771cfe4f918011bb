package machine

import (
	"slices"
	"strings"
	"testing"

	"vmd/hv/kvm"
)

// someHost is what a KVM might offer.
var someHost = []kvm.CPUIDEntry{
	{Function: 0, EAX: 0xd, EBX: 0x68747541, ECX: 0x444d4163, EDX: 0x69746e65},
	{Function: 1, EAX: 0x830f10, EBX: 0x00080800, ECX: 0xf6f83203, EDX: 0x178bfbff},
	{Function: 4, Index: 3, Flags: 1, EAX: 0x163, EBX: 0x3c0003f, ECX: 0x3fff},
	{Function: 7, Index: 0, Flags: 1, EAX: 1, EBX: 0x219c01ab, ECX: 0x0040069c, EDX: 0x10},
	{Function: 0xb, Index: 0, Flags: 1, EAX: 1, EBX: 2, ECX: 0x100},
	{Function: 0xd, Index: 0, Flags: 1, EAX: 0x207, EBX: 0x988, ECX: 0x988},
	{Function: 0xd, Index: 1, Flags: 1, EAX: 0xf},
	{Function: 0xd, Index: 2, Flags: 1, EAX: 0x100, EBX: 0x240},
	{Function: leafKVM, EAX: leafKVMFlags, EBX: 0x4b4d564b, ECX: 0x564b4d56, EDX: 0x4d},
	{Function: leafKVMFlags, EAX: 0x01007efb},
	{Function: 0x80000000, EAX: 0x80000021, EBX: 0x68747541, ECX: 0x444d4163, EDX: 0x69746e65},
	{Function: 0x80000001, EAX: 0x830f10, ECX: 0x75c237ff, EDX: 0x2fd3fbff},
	{Function: 0x80000008, EAX: 0x3030, EBX: 0x111ef657, ECX: 0x7007},
	{Function: 0x8000001e, EAX: 3, EBX: 0x100, ECX: 1},
	{Function: 0x80000021, EAX: 0x45},
}

func TestOffers(t *testing.T) {
	top := cpuTopology{count: 2, tscKHz: 2_000_000, deadline: true}
	change := func(function, index uint32, f func(e *kvm.CPUIDEntry)) func([]kvm.CPUIDEntry) []kvm.CPUIDEntry {
		return func(s []kvm.CPUIDEntry) []kvm.CPUIDEntry {
			for i := range s {
				if s[i].Function == function && s[i].Index == index {
					f(&s[i])
				}
			}
			return s
		}
	}
	add := func(e kvm.CPUIDEntry) func([]kvm.CPUIDEntry) []kvm.CPUIDEntry {
		return func(s []kvm.CPUIDEntry) []kvm.CPUIDEntry { return append(s, e) }
	}
	for name, c := range map[string]struct {
		change func([]kvm.CPUIDEntry) []kvm.CPUIDEntry
		want   string // of the error; "" for none
	}{
		"the same":                  {add(kvm.CPUIDEntry{Function: 0x77}), ""},
		"fewer features":            {change(1, 0, func(e *kvm.CPUIDEntry) { e.ECX &^= 1 << 9 }), ""},
		"another model":             {change(1, 0, func(e *kvm.CPUIDEntry) { e.EAX++ }), ""},
		"other caches":              {change(4, 3, func(e *kvm.CPUIDEntry) { e.EBX = 1 }), ""},
		"fewer leaves":              {func(s []kvm.CPUIDEntry) []kvm.CPUIDEntry { return s[:3] }, ""},
		"no CPUID at all":           {func([]kvm.CPUIDEntry) []kvm.CPUIDEntry { return nil }, ""},
		"another maker":             {change(0, 0, func(e *kvm.CPUIDEntry) { e.EBX = 0x756e6547 }), "leaf 0x0, sub-leaf 0, that EBX"},
		"VMX":                       {change(1, 0, func(e *kvm.CPUIDEntry) { e.ECX |= 1 << 5 }), "bits 0x20 differ"},
		"MONITOR":                   {change(1, 0, func(e *kvm.CPUIDEntry) { e.ECX |= 1 << 3 }), "bits 0x8 differ"},
		"SVM":                       {change(0x80000001, 0, func(e *kvm.CPUIDEntry) { e.ECX |= 1 << 2 }), "bits 0x4 differ"},
		"AVX-512":                   {change(7, 0, func(e *kvm.CPUIDEntry) { e.EBX |= 1 << 16 }), "leaf 0x7, sub-leaf 0, that EBX"},
		"a later leaf 7":            {add(kvm.CPUIDEntry{Function: 7, Index: 1, Flags: 1, EAX: 1 << 4}), "leaf 0x7, sub-leaf 1, that EAX"},
		"XCR0":                      {change(0xd, 0, func(e *kvm.CPUIDEntry) { e.EAX |= 0xe0 }), "bits 0xe0 differ"},
		"AVX elsewhere":             {change(0xd, 2, func(e *kvm.CPUIDEntry) { e.EBX = 0x340 }), "leaf 0xd, sub-leaf 2"},
		"a new component":           {add(kvm.CPUIDEntry{Function: 0xd, Index: 5, Flags: 1, EAX: 64}), "leaf 0xd, sub-leaf 5"},
		"SGX":                       {add(kvm.CPUIDEntry{Function: 0x12, EAX: 1}), "leaf 0x12"},
		"a leaf of tomorrow":        {add(kvm.CPUIDEntry{Function: 0x29, EBX: 1}), "leaf 0x29"},
		"SEV":                       {add(kvm.CPUIDEntry{Function: 0x8000001f, EAX: 2}), "leaf 0x8000001f"},
		"KVM's features":            {change(leafKVMFlags, 0, func(e *kvm.CPUIDEntry) { e.EAX |= 1 << 30 }), "leaf 0x40000001"},
		"another hypervisor's leaf": {add(kvm.CPUIDEntry{Function: 0x40000003, EAX: 1}), "leaf 0x40000003"},
	} {
		for _, who := range []signatures{kvmOnly, openBSDFirst} {
			if who == openBSDFirst && strings.Contains(name, "KVM") {
				continue
			}
			sent := c.change(guestCPUID(someHost, top, who))
			err := offers(someHost, sent, top)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}
	sent := guestCPUID(someHost, top, openBSDFirst)
	for i := range sent {
		if sent[i].Function == leafKVMFlags+nextHypervisor {
			sent[i].EAX |= 1 << 30
		}
	}
	if err := offers(someHost, sent, top); err == nil {
		t.Error("KVM's features, second place: taken")
	}
}

func TestOffersWithoutDeadline(t *testing.T) {
	top := cpuTopology{count: 1, deadline: true}
	sent := guestCPUID(someHost, top, kvmOnly)
	top.deadline = false
	if err := offers(someHost, sent, top); err == nil || !strings.Contains(err.Error(), "0x1000000") {
		t.Errorf("a host without the timer: %v", err)
	}
}

// TestWithID makes the CPUID of every vCPU from the first one's.
func TestWithID(t *testing.T) {
	for id := range 4 {
		top := cpuTopology{count: 4, tscKHz: 1}
		first := guestCPUID(someHost, top, kvmOnly)
		top.id = id
		if got, want := withID(first, id), guestCPUID(someHost, top, kvmOnly); !slices.Equal(got, want) {
			t.Errorf("vCPU %d:\n%x\nwant\n%x", id, got, want)
		}
	}
}
