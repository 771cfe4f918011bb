package mib

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// row is a VM made ready for reading: checked, copied, cut to the sizes of the
// MIB. It does not change once a Snapshot holds it.
type row struct {
	vm    VM
	uuid  string // 16 octets or none
	unit  int32  // vmMemUnit
	disks []diskRow
	macs  []string
	base  Totals // full length: one entry for each vCPU and disk
}

type diskRow struct {
	unit, defined, allocated int32
}

// maxParts bounds vCPUs, disks and NICs of one machine: more is a mistake of
// the caller, and each costs memory.
const maxParts = 4096

func newRow(vm *VM) (*row, error) {
	if err := check(vm); err != nil {
		return nil, fmt.Errorf("vm %q, vmIndex %d: %w", vm.Name, vm.Index, err)
	}
	r := &row{vm: *vm}
	r.vm.Name = adminString(vm.Name)
	r.vm.OSType = adminString(vm.OSType)
	if vm.UUID != [16]byte{} {
		r.uuid = string(vm.UUID[:])
	}
	r.unit = memUnit(vm.Memory)
	r.vm.Affinity = make([]CPUMask, len(vm.Affinity))
	for i, m := range vm.Affinity {
		r.vm.Affinity[i] = append(CPUMask(nil), m...)
	}
	r.copyDisks(vm.Disks)
	r.copyNICs(vm.NICs)
	r.base.CPUTime = vm.Base.CPUTime
	r.base.VCPUs = make([]uint64, vm.CPUs)
	copy(r.base.VCPUs, vm.Base.VCPUs)
	r.base.Disks = make([]DiskCounters, len(vm.Disks))
	copy(r.base.Disks, vm.Base.Disks)
	return r, nil
}

func (r *row) copyDisks(disks []Disk) {
	r.vm.Disks = append([]Disk(nil), disks...)
	r.disks = make([]diskRow, len(disks))
	for i := range r.vm.Disks {
		d := &r.vm.Disks[i]
		d.SourceName = adminString(d.SourceName)
		d.Path = adminStringTail(d.Path)
		d.MediaName = adminString(d.MediaName)
		r.disks[i] = sizes(d)
	}
}

func (r *row) copyNICs(nics []NIC) {
	r.vm.NICs = append([]NIC(nil), nics...)
	r.macs = make([]string, len(nics))
	for i := range r.vm.NICs {
		n := &r.vm.NICs[i]
		n.Model = adminString(n.Model)
		r.macs[i] = string(n.MAC)
		n.MAC = nil
	}
}

func check(vm *VM) error {
	between := func(what string, n, lo, hi int32) error {
		if n < lo || n > hi {
			return fmt.Errorf("%s %d: not in %d..%d", what, n, lo, hi)
		}
		return nil
	}
	errs := []error{
		between("vmIndex", vm.Index, 1, math.MaxInt32),
		between("vmAdminState", int32(vm.Admin), 1, 4),
		between("vmOperState", int32(vm.Oper), 1, 12),
		between("vmAutoStart", int32(vm.AutoStart), 1, 3),
		between("vmPersistent", int32(vm.Persistent), 1, 3),
		between("vCPUs", vm.CPUs, 0, maxParts),
		between("disks", int32(min(len(vm.Disks), math.MaxInt32)), 0, maxParts),
		between("interfaces", int32(min(len(vm.NICs), math.MaxInt32)), 0, maxParts),
	}
	for i := range vm.Disks {
		d := &vm.Disks[i]
		errs = append(errs,
			between("vmStorageSourceType", int32(d.Source), 1, 6),
			between("vmStorageAccess", int32(d.Access), 1, 3),
			between("vmStorageMediaType", int32(d.Media), 1, 5))
	}
	for i := range vm.NICs {
		n := &vm.NICs[i]
		errs = append(errs,
			between("vmNetworkIfIndex", n.IfIndex, 0, math.MaxInt32),
			between("vmNetworkParent", n.Parent, 0, math.MaxInt32),
			between("octets of vmNetworkPhysAddress", int32(min(len(n.MAC), 256)), 0, 255))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// totals is what the counters of r show now.
func (r *row) totals() Totals {
	t := Totals{
		CPUTime: r.cpuTime(),
		VCPUs:   make([]uint64, len(r.base.VCPUs)),
		Disks:   make([]DiskCounters, len(r.base.Disks)),
	}
	for i := range t.VCPUs {
		t.VCPUs[i] = r.vcpuTime(i)
	}
	for i := range t.Disks {
		t.Disks[i] = r.disk(i)
	}
	return t
}

// keepUp raises the base of r so that no counter is below what old, an earlier
// record of the same machine, has shown. Managers read a Counter64 that goes
// down as one that wrapped at 2^64 and draw the difference (RFC 7666 has no
// object that would tell them otherwise).
func (r *row) keepUp(old *row) {
	was, is := old.totals(), r.totals()
	r.base.CPUTime += missing(was.CPUTime, is.CPUTime)
	for i := range min(len(was.VCPUs), len(is.VCPUs)) {
		r.base.VCPUs[i] += missing(was.VCPUs[i], is.VCPUs[i])
	}
	for i := range min(len(was.Disks), len(is.Disks)) {
		r.base.Disks[i] = r.base.Disks[i].plus(was.Disks[i].missing(is.Disks[i]))
	}
}

// cpuTime is never less than the vCPUs' sum: the two come from different
// clocks, and a manager may subtract them.
func (r *row) cpuTime() uint64 {
	t := r.base.CPUTime
	if r.vm.Counters != nil {
		t += r.vm.Counters.CPUTime()
	}
	var sum uint64
	for i := range r.base.VCPUs {
		sum += r.vcpuTime(i)
	}
	return max(t, sum)
}

func (r *row) vcpuTime(i int) uint64 {
	t := r.base.VCPUs[i]
	if r.vm.Counters != nil {
		t += r.vm.Counters.VCPUTime(i)
	}
	return t
}

func (r *row) disk(i int) DiskCounters {
	d := r.base.Disks[i]
	if r.vm.Counters != nil {
		d = d.plus(r.vm.Counters.Disk(i))
	}
	return d
}

// resident says whether the machine has its memory (RFC 7666, the text of
// VirtualMachineOperState). A machine whose process does not answer still does.
func (r *row) resident() bool {
	switch r.vm.Oper {
	case OperUnknown, OperRunning, OperSuspending, OperResuming,
		OperPaused, OperMigrating, OperShuttingDown:
		return true
	}
	return false
}

const (
	kiB = 1 << 10
	miB = 1 << 20
	giB = 1 << 30
)

// memUnit is 1 MiB, or 1 KiB for an amount that MiB cannot tell exactly.
func memUnit(bytes uint64) int32 {
	if bytes%miB != 0 && bytes/kiB <= math.MaxInt32 {
		return kiB
	}
	return miB
}

// inUnits never overflows into a negative number: -1 says "no limit".
func inUnits(bytes uint64, unit int32) int32 {
	return int32(min(bytes/uint64(unit), math.MaxInt32))
}

// sizes takes the smallest unit in which both sizes fit 31 bits. RFC 7666
// demands that block and raw storage have both sizes equal, holes or not.
func sizes(d *Disk) diskRow {
	defined, allocated := max(d.Defined, -1), max(d.Allocated, -1)
	if d.Source == SourceBlock || d.Source == SourceRaw {
		allocated = defined
	}
	biggest := uint64(max(defined, allocated, 0))
	r := diskRow{unit: giB}
	for _, u := range []int32{512, kiB, miB} {
		if biggest <= uint64(u)*math.MaxInt32 {
			r.unit = u
			break
		}
	}
	r.defined, r.allocated = up(defined, r.unit), up(allocated, r.unit)
	return r
}

func up(bytes int64, unit int32) int32 {
	if bytes < 0 {
		return -1
	}
	u := uint64(unit)
	return int32(min((uint64(bytes)+u-1)/u, math.MaxInt32))
}

const maxAdminString = 255 // octets of a SnmpAdminString (RFC 3411)

// adminString cuts s to a SnmpAdminString: UTF-8, whole code points.
func adminString(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxAdminString {
		return s
	}
	n := maxAdminString
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// adminStringTail keeps the end instead: of a long path it is what tells one
// image from another.
func adminStringTail(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxAdminString {
		return s
	}
	n := len(s) - maxAdminString
	for n < len(s) && !utf8.RuneStart(s[n]) {
		n++
	}
	return s[n:]
}
