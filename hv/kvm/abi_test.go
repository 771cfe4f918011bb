package kvm

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"vmd/internal/golden"
)

const goldenFile = "testdata/abi.golden"

// abiStructs pairs the kernel's structs with ours: C field names, "-" for
// padding, in the order of our fields. size is false where ours has room that
// C's flexible array has not.
var abiStructs = []struct {
	c      string
	v      any
	size   bool
	fields string
}{
	{"kvm_userspace_memory_region", userspaceMemoryRegion{}, true, "slot flags guest_phys_addr memory_size userspace_addr"},
	{"kvm_regs", Regs{}, true, "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"},
	{"kvm_segment", Segment{}, true, "base limit selector type present dpl db s l g avl unusable -"},
	{"kvm_dtable", Dtable{}, true, "base limit -"},
	{"kvm_sregs", Sregs{}, true, "cs ds es fs gs ss tr ldt gdt idt cr0 cr2 cr3 cr4 cr8 efer apic_base interrupt_bitmap"},
	{"kvm_msr_entry", MSR{}, true, "index - data"},
	{"kvm_msrs", msrs{}, false, "nmsrs - entries"},
	{"kvm_cpuid_entry2", CPUIDEntry{}, true, "function index flags eax ebx ecx edx -"},
	{"kvm_cpuid2", cpuid2{}, false, "nent - entries"},
	{"kvm_irq_level", irqLevel{}, true, "irq level"},
	{"kvm_irq_routing_entry", routingEntry{}, true, "gsi type flags - u"},
	{"kvm_irq_routing", irqRouting{}, false, "nr flags entries"},
	{"kvm_irqfd", irqfd{}, true, "fd gsi flags resamplefd -"},
	{"kvm_ioeventfd", ioeventfd{}, true, "datamatch addr len fd flags -"},
	{"kvm_coalesced_mmio_zone", coalescedZone{}, true, "addr size pio"},
	{"kvm_coalesced_mmio", coalescedEntry{}, true, "phys_addr len pio data"},
	{"kvm_coalesced_mmio_ring", coalescedRing{}, false, "first last coalesced_mmio"},
	{"kvm_device_attr", deviceAttr{}, true, "flags group attr addr"},
	{"kvm_clock_data", clockData{}, true, "clock flags - realtime host_tsc -"},
	{"kvm_pit_config", pitConfig{}, true, "flags -"},
	{"kvm_enable_cap", enableCap{}, true, "cap flags args -"},
	{"kvm_mp_state", mpState{}, true, "mp_state"},
	{"kvm_lapic_state", LAPIC{}, true, "regs"},
	{"kvm_translation", translation{}, true, "linear_address physical_address valid writeable usermode -"},
	{"kvm_vcpu_events", Events{}, true, "exception interrupt nmi sipi_vector flags smi triple_fault - exception_has_payload exception_payload"},
	{"kvm_debugregs", DebugRegs{}, true, "db dr6 dr7 flags -"},
	{"kvm_xcr", XCR{}, true, "xcr - value"},
	{"kvm_xcrs", XCRs{}, true, "nr_xcrs flags xcrs -"},
	{"kvm_irqchip", IRQChip{}, true, "chip_id - chip"},
	{"kvm_pit_channel_state", PITChannel{}, true, "count latched_count count_latched status_latched status read_state write_state write_latch rw_mode mode bcd gate count_load_time"},
	{"kvm_pit_state2", PIT{}, true, "channels flags -"},
	{"kvm_dirty_log", dirtyLog{}, true, "slot - dirty_bitmap"},
	{"kvm_clear_dirty_log", clearDirtyLog{}, true, "slot num_pages first_page dirty_bitmap"},
	{"kvm_msr_list", msrList{}, false, "nmsrs indices"},
	{"kvm_sev_cmd", sevCmd{}, true, "id - data error sev_fd"},
	{"kvm_enc_region", encRegion{}, true, "addr size"},
	{"kvm_run", runPage{}, false, "request_interrupt_window - exit_reason ready_for_interrupt_injection if_flag flags cr8 apic_base io"},
}

// abiUnions are members of kvm_run's union: offsets count from its start.
var abiUnions = []struct {
	c      string
	v      any
	fields string
}{
	{"io", ioExit{}, "direction size port count data_offset"},
	{"mmio", mmioExit{}, "phys_addr data len is_write -"},
	{"internal", internalExit{}, "suberror ndata data"},
	{"fail_entry", failExit{}, "hardware_entry_failure_reason cpu -"},
	{"system_event", systemExit{}, "type ndata data"},
}

// abiNumbers are constants to compare by name.
var abiNumbers = map[string]uint64{
	"KVM_GET_API_VERSION": KVM_GET_API_VERSION, "KVM_CREATE_VM": KVM_CREATE_VM, "KVM_CHECK_EXTENSION": KVM_CHECK_EXTENSION,
	"KVM_GET_VCPU_MMAP_SIZE": KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_SUPPORTED_CPUID": KVM_GET_SUPPORTED_CPUID,
	"KVM_CREATE_VCPU": KVM_CREATE_VCPU, "KVM_SET_USER_MEMORY_REGION": KVM_SET_USER_MEMORY_REGION,
	"KVM_SET_TSS_ADDR": KVM_SET_TSS_ADDR, "KVM_SET_IDENTITY_MAP_ADDR": KVM_SET_IDENTITY_MAP_ADDR,
	"KVM_CREATE_IRQCHIP": KVM_CREATE_IRQCHIP, "KVM_IRQ_LINE": KVM_IRQ_LINE, "KVM_SET_GSI_ROUTING": KVM_SET_GSI_ROUTING,
	"KVM_IRQFD": KVM_IRQFD, "KVM_CREATE_PIT2": KVM_CREATE_PIT2, "KVM_IOEVENTFD": KVM_IOEVENTFD, "KVM_ENABLE_CAP": KVM_ENABLE_CAP,
	"KVM_RUN": KVM_RUN, "KVM_GET_REGS": KVM_GET_REGS, "KVM_SET_REGS": KVM_SET_REGS, "KVM_GET_SREGS": KVM_GET_SREGS,
	"KVM_SET_SREGS": KVM_SET_SREGS, "KVM_TRANSLATE": KVM_TRANSLATE, "KVM_GET_MSRS": KVM_GET_MSRS, "KVM_SET_MSRS": KVM_SET_MSRS,
	"KVM_GET_LAPIC": KVM_GET_LAPIC, "KVM_SET_LAPIC": KVM_SET_LAPIC, "KVM_SET_CPUID2": KVM_SET_CPUID2,
	"KVM_GET_MP_STATE": KVM_GET_MP_STATE, "KVM_SET_MP_STATE": KVM_SET_MP_STATE, "KVM_NMI": KVM_NMI,
	"KVM_GET_VCPU_EVENTS": KVM_GET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS": KVM_SET_VCPU_EVENTS,
	"KVM_GET_TSC_KHZ": KVM_GET_TSC_KHZ, "KVM_KVMCLOCK_CTRL": KVM_KVMCLOCK_CTRL,

	"KVM_CAP_IRQCHIP": uint64(KVM_CAP_IRQCHIP), "KVM_CAP_HLT": uint64(KVM_CAP_HLT), "KVM_CAP_USER_MEMORY": uint64(KVM_CAP_USER_MEMORY),
	"KVM_CAP_SET_TSS_ADDR": uint64(KVM_CAP_SET_TSS_ADDR), "KVM_CAP_EXT_CPUID": uint64(KVM_CAP_EXT_CPUID),
	"KVM_CAP_NR_VCPUS": uint64(KVM_CAP_NR_VCPUS), "KVM_CAP_NR_MEMSLOTS": uint64(KVM_CAP_NR_MEMSLOTS), "KVM_CAP_MP_STATE": uint64(KVM_CAP_MP_STATE),
	"KVM_CAP_IRQ_ROUTING": uint64(KVM_CAP_IRQ_ROUTING), "KVM_CAP_IRQFD": uint64(KVM_CAP_IRQFD), "KVM_CAP_PIT2": uint64(KVM_CAP_PIT2),
	"KVM_CAP_IOEVENTFD": uint64(KVM_CAP_IOEVENTFD), "KVM_CAP_SET_IDENTITY_MAP_ADDR": uint64(KVM_CAP_SET_IDENTITY_MAP_ADDR),
	"KVM_CAP_VCPU_EVENTS": uint64(KVM_CAP_VCPU_EVENTS), "KVM_CAP_GET_TSC_KHZ": uint64(KVM_CAP_GET_TSC_KHZ), "KVM_CAP_MAX_VCPUS": uint64(KVM_CAP_MAX_VCPUS),
	"KVM_CAP_TSC_DEADLINE_TIMER": uint64(KVM_CAP_TSC_DEADLINE_TIMER), "KVM_CAP_KVMCLOCK_CTRL": uint64(KVM_CAP_KVMCLOCK_CTRL),
	"KVM_CAP_SIGNAL_MSI": uint64(KVM_CAP_SIGNAL_MSI), "KVM_CAP_IOEVENTFD_ANY_LENGTH": uint64(KVM_CAP_IOEVENTFD_ANY_LENGTH),
	"KVM_CAP_X2APIC_API": uint64(KVM_CAP_X2APIC_API), "KVM_CAP_IMMEDIATE_EXIT": uint64(KVM_CAP_IMMEDIATE_EXIT),
	"KVM_CAP_EXIT_ON_EMULATION_FAILURE": uint64(KVM_CAP_EXIT_ON_EMULATION_FAILURE),

	"KVM_CAP_PMU_CAPABILITY": uint64(KVM_CAP_PMU_CAPABILITY), "KVM_PMU_CAP_DISABLE": KVM_PMU_CAP_DISABLE,

	"KVM_REGISTER_COALESCED_MMIO": KVM_REGISTER_COALESCED_MMIO, "KVM_SET_CLOCK": KVM_SET_CLOCK, "KVM_SET_DEVICE_ATTR": KVM_SET_DEVICE_ATTR, "KVM_GET_DEVICE_ATTR": KVM_GET_DEVICE_ATTR,
	"KVM_VCPU_TSC_CTRL": KVM_VCPU_TSC_CTRL, "KVM_VCPU_TSC_OFFSET": KVM_VCPU_TSC_OFFSET, "KVM_GET_CLOCK": KVM_GET_CLOCK,
	"KVM_CAP_COALESCED_MMIO": uint64(KVM_CAP_COALESCED_MMIO), "KVM_CAP_COALESCED_PIO": uint64(KVM_CAP_COALESCED_PIO),
	"KVM_EXIT_IO": uint64(KVM_EXIT_IO), "KVM_EXIT_HLT": uint64(KVM_EXIT_HLT), "KVM_EXIT_MMIO": uint64(KVM_EXIT_MMIO),
	"KVM_EXIT_SHUTDOWN": uint64(KVM_EXIT_SHUTDOWN), "KVM_EXIT_FAIL_ENTRY": uint64(KVM_EXIT_FAIL_ENTRY), "KVM_EXIT_INTR": uint64(KVM_EXIT_INTR),
	"KVM_EXIT_INTERNAL_ERROR": uint64(KVM_EXIT_INTERNAL_ERROR), "KVM_EXIT_SYSTEM_EVENT": uint64(KVM_EXIT_SYSTEM_EVENT),

	"KVM_MP_STATE_RUNNABLE": KVM_MP_STATE_RUNNABLE, "KVM_MP_STATE_UNINITIALIZED": KVM_MP_STATE_UNINITIALIZED, "KVM_MP_STATE_HALTED": KVM_MP_STATE_HALTED,
	"KVM_MEM_READONLY": KVM_MEM_READONLY, "KVM_IRQ_ROUTING_IRQCHIP": KVM_IRQ_ROUTING_IRQCHIP, "KVM_IRQ_ROUTING_MSI": KVM_IRQ_ROUTING_MSI,
	"KVM_IRQCHIP_PIC_MASTER": KVM_IRQCHIP_PIC_MASTER, "KVM_IRQCHIP_PIC_SLAVE": KVM_IRQCHIP_PIC_SLAVE, "KVM_IRQCHIP_IOAPIC": KVM_IRQCHIP_IOAPIC,
	"KVM_IRQFD_FLAG_DEASSIGN": KVM_IRQFD_FLAG_DEASSIGN, "KVM_IOEVENTFD_FLAG_DATAMATCH": KVM_IOEVENTFD_FLAG_DATAMATCH,
	"KVM_IOEVENTFD_FLAG_PIO": KVM_IOEVENTFD_FLAG_PIO, "KVM_IOEVENTFD_FLAG_DEASSIGN": KVM_IOEVENTFD_FLAG_DEASSIGN,
	"KVM_PIT_SPEAKER_DUMMY": KVM_PIT_SPEAKER_DUMMY, "KVM_CPUID_FLAG_SIGNIFCANT_INDEX": KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
	"KVM_X2APIC_API_USE_32BIT_IDS": KVM_X2APIC_API_USE_32BIT_IDS, "KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK": KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,

	"KVM_GET_MSR_INDEX_LIST": KVM_GET_MSR_INDEX_LIST, "KVM_GET_DIRTY_LOG": KVM_GET_DIRTY_LOG, "KVM_CLEAR_DIRTY_LOG": KVM_CLEAR_DIRTY_LOG, "KVM_GET_IRQCHIP": KVM_GET_IRQCHIP, "KVM_SET_IRQCHIP": KVM_SET_IRQCHIP, "KVM_GET_PIT2": KVM_GET_PIT2, "KVM_SET_PIT2": KVM_SET_PIT2,
	"KVM_GET_DEBUGREGS": KVM_GET_DEBUGREGS, "KVM_SET_DEBUGREGS": KVM_SET_DEBUGREGS, "KVM_GET_XSAVE": KVM_GET_XSAVE, "KVM_SET_XSAVE": KVM_SET_XSAVE, "KVM_GET_XSAVE2": KVM_GET_XSAVE2, "KVM_GET_XCRS": KVM_GET_XCRS, "KVM_SET_XCRS": KVM_SET_XCRS, "KVM_SET_TSC_KHZ": KVM_SET_TSC_KHZ,
	"KVM_MEM_LOG_DIRTY_PAGES": KVM_MEM_LOG_DIRTY_PAGES, "KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE": KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, "KVM_DIRTY_LOG_INITIALLY_SET": KVM_DIRTY_LOG_INITIALLY_SET,
	"KVM_CAP_DEBUGREGS": uint64(KVM_CAP_DEBUGREGS), "KVM_CAP_XSAVE": uint64(KVM_CAP_XSAVE),
	"KVM_CAP_XCRS": uint64(KVM_CAP_XCRS), "KVM_CAP_TSC_CONTROL": uint64(KVM_CAP_TSC_CONTROL),
	"KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2": uint64(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), "KVM_CAP_XSAVE2": uint64(KVM_CAP_XSAVE2),
	"sizeof(struct kvm_xsave)": xsaveSize,

	"KVM_MEMORY_ENCRYPT_OP": KVM_MEMORY_ENCRYPT_OP, "KVM_MEMORY_ENCRYPT_REG_REGION": KVM_MEMORY_ENCRYPT_REG_REGION,
}

// ours lists what this package believes, a line each.
func ours(t *testing.T) map[string]uint64 {
	t.Helper()
	m := map[string]uint64{}
	add := func(c string, v any, size bool, fields string) {
		typ := reflect.TypeOf(v)
		names := strings.Fields(fields)
		if len(names) != typ.NumField() {
			t.Fatalf("%s: %d names for %d fields of %v", c, len(names), typ.NumField(), typ)
		}
		if size {
			m[c+" size"] = uint64(typ.Size())
		}
		for i, n := range names {
			if n != "-" {
				m[c+"."+n] = uint64(typ.Field(i).Offset)
			}
		}
	}
	for _, s := range abiStructs {
		add(s.c, s.v, s.size, s.fields)
	}
	for _, u := range abiUnions {
		add("kvm_run:"+u.c, u.v, false, u.fields)
	}
	for n, v := range abiNumbers {
		m[n] = v
	}
	return m
}

// theirs asks the C compiler for the same lines.
func theirs(t *testing.T) (string, bool) {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", false
	}
	var c strings.Builder
	c.WriteString("#include <stdio.h>\n#include <stddef.h>\n#include <linux/kvm.h>\nint main(void) {\n")
	line := func(name, expr string) {
		fmt.Fprintf(&c, "\tprintf(\"%%s\\t%%#llx\\n\", %q, (unsigned long long)(%s));\n", name, expr)
	}
	for _, s := range abiStructs {
		if s.size {
			line(s.c+" size", "sizeof(struct "+s.c+")")
		}
		for _, f := range strings.Fields(s.fields) {
			if f != "-" {
				line(s.c+"."+f, "offsetof(struct "+s.c+", "+f+")")
			}
		}
	}
	for _, u := range abiUnions {
		for _, f := range strings.Fields(u.fields) {
			if f != "-" {
				line("kvm_run:"+u.c+"."+f, "offsetof(struct kvm_run, "+u.c+"."+f+") - offsetof(struct kvm_run, io)")
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(abiNumbers)) {
		line(n, n)
	}
	c.WriteString("\treturn 0;\n}\n")
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "abi.c"), filepath.Join(dir, "abi")
	if err := os.WriteFile(src, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-o", bin, src).CombinedOutput(); err != nil {
		t.Logf("these headers don't have it all: %v\n%s", err, out)
		return "", false
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out), true
}

func TestABI(t *testing.T) {
	if text, ok := theirs(t); ok && golden.Updating() {
		if err := os.WriteFile(goldenFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if golden.Updating() {
		t.Fatal("-update needs gcc and the kernel's headers")
	}
	headers, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	got := ours(t)
	for l := range strings.Lines(string(headers)) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), "\t")
		var want uint64
		if _, err := fmt.Sscanf(value, "%v", &want); err != nil {
			t.Fatalf("%s: %q: %v", goldenFile, l, err)
		}
		if v, ok := got[name]; !ok {
			t.Errorf("%s: in %s, not in this package", name, goldenFile)
		} else if v != want {
			t.Errorf("%s is %#x, the kernel has %#x", name, v, want)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s: not in %s", name, goldenFile)
	}
}

// TestABIHeaders holds the golden file against this machine's headers.
func TestABIHeaders(t *testing.T) {
	text, ok := theirs(t)
	if !ok {
		t.Skip("no gcc, or kernel headers that lack some of this")
	}
	golden.Check(t, goldenFile, text)
}
