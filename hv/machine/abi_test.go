package machine

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vmd/hv/acpi"
	"vmd/hv/chipset"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/smbios"
	"vmd/hv/virtio/virtiopci"
	"vmd/internal/golden"
)

// TestABI holds what a guest sees of the machine, and the form in which its state
// travels, against what it was: a guest that moves must not see another one.
// Whoever changes it on purpose raises Version and writes a new file, named after
// it. A field that is only added needs no new version if a receiver knows how to
// be without: an older one refuses the field that it does not know.
func TestABI(t *testing.T) {
	var b strings.Builder
	for _, c := range []Config{
		{Memory: 512 << 20, CPUs: 1},
		{Memory: 6 << 30, CPUs: 4, UUID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
	} {
		describe(t, &b, c)
	}
	fmt.Fprintf(&b, "\nstate\n")
	seen := map[reflect.Type]bool{}
	for _, v := range []any{
		shape{}, roundState{}, partState{}, chipState{}, vcpuState{},
		pci.BusState{}, virtiopci.State{},
		chipset.UARTState{}, chipset.RTCState{}, chipset.PMState{}, chipset.PostState{}, chipset.Port92State{},
		chipset.ResetState{}, chipset.PVPanicState{}, chipset.FWCfgState{},
	} {
		schema(&b, reflect.TypeOf(v), seen)
	}
	name := filepath.Join("testdata", fmt.Sprintf("abi.v%d", Version))
	golden.Check(t, name, b.String())
}

// describe writes what a guest of a machine of c sees.
func describe(t *testing.T, b *strings.Builder, c Config) {
	t.Helper()
	const bits = 40
	m := &Machine{cfg: c, windows: pciWindows(c.Memory, bits)}
	fmt.Fprintf(b, "machine version %d, %d MiB, %d vCPUs\n", Version, c.Memory>>20, c.CPUs)
	var regions []mem.Region
	for _, r := range ramRanges(c.Memory) {
		fmt.Fprintf(b, "RAM %#x %#x\n", r.Base, r.Size)
		regions = append(regions, mem.Region{Base: r.Base, Bytes: make([]byte, 1)})
	}
	memory, err := mem.New(regions...)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(b, "e820 of bytes %x\n", e820(memory))
	w := m.windows
	fmt.Fprintf(b, "PCI windows %#x %#x, %#x %#x, %#x %#x with %d address bits\n",
		w.IO.Base, w.IO.Size, w.MMIO.Base, w.MMIO.Size, w.MMIO64.Base, w.MMIO64.Size, bits)
	fmt.Fprintf(b, "slots CD %d disk %d NIC %d RNG %d balloon %d vmmci %d\n",
		pci.SlotCD, pci.SlotDisk, pci.SlotNIC, pci.SlotRNG, pci.SlotBalloon, pci.SlotVMMCI)
	fmt.Fprintf(b, "interrupts COM1 %d RTC %d SCI %d links %d\n", irqCOM1, irqRTC, irqSCI, links)
	for _, fw := range []bool{false, true} {
		a := m.acpiConfig()
		if a.FWCfg = fw; fw {
			a.MMIO64 = acpi.Window{Base: mem.GPA(w.MMIO64.Base), Size: w.MMIO64.Size}
		}
		tables, err := acpi.Build(a)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(b, "ACPI with fw_cfg %v: %d bytes %x, RSDP %x\n", fw, len(tables.Blob), sha256.Sum256(tables.Blob), tables.RSDP)
	}
	s, err := smbios.Build(m.smbiosConfig())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(b, "SMBIOS: %d bytes %x, anchor %x\n", len(s.Blob), sha256.Sum256(s.Blob), s.Anchor)
	fmt.Fprintf(b, "MSRs at start %x\n", startMSRs)
	for _, who := range []signatures{kvmOnly, openBSDFirst} {
		top := cpuTopology{id: c.CPUs - 1, count: c.CPUs, tscKHz: 2_500_000, deadline: true}
		fmt.Fprintf(b, "CPUID of vCPU %d, OpenBSD first %v\n", top.id, who == openBSDFirst)
		for _, e := range guestCPUID(someHost, top, who) {
			fmt.Fprintf(b, "\t%08x.%d %08x %08x %08x %08x\n", e.Function, e.Index, e.EAX, e.EBX, e.ECX, e.EDX)
		}
	}
}

// schema writes how typ and what it is made of are encoded.
func schema(b *strings.Builder, typ reflect.Type, seen map[reflect.Type]bool) {
	for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Array {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ.NumField() == 0 || seen[typ] {
		return
	}
	seen[typ] = true
	fmt.Fprintf(b, "%v\n", typ)
	for i := range typ.NumField() {
		f := typ.Field(i)
		kind := f.Type.String()
		if f.Type.Name() != "" && f.Type.Kind() != reflect.Struct {
			kind = f.Type.Kind().String() // what it is, not what it is called
		}
		fmt.Fprintf(b, "\t%s %s %s\n", f.Tag.Get("cbor"), f.Name, kind)
	}
	for i := range typ.NumField() {
		schema(b, typ.Field(i).Type, seen)
	}
}
