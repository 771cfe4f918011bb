package subagent

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/counters"
	"vmd/internal/vmop"
	"vmd/mib"
)

// software is vmHvSoftware, which is to be without a version.
const software = "vmd"

func host(c vmop.SNMPConfig) mib.Host {
	h := mib.Host{
		Software: software,
		Version:  c.Version,
		Start:    time.Duration(c.Started),
		PhysCPUs: c.CPUs,
		PhysBase: c.PhysBase,
		ObjectID: c.ObjectID,
		VMInfo:   c.VMInfo,
	}
	if h.PhysBase == 0 {
		h.PhysBase = mib.DefaultPhysBase
	}
	if c.Changed > c.Started {
		h.LastChange = time.Duration(c.Changed - c.Started)
	}
	if len(h.PhysCPUs) == 0 {
		for i := range runtime.NumCPU() {
			h.PhysCPUs = append(h.PhysCPUs, int32(i))
		}
	}
	return h
}

func vmIndex(id uint32) (int32, error) {
	if id == 0 || id > math.MaxInt32 {
		return 0, fmt.Errorf("vm id %d: not a vmIndex", id)
	}
	return int32(id), nil
}

// record is the VM as the MIB has it.
func (m *machine) record() (*mib.VM, error) {
	index, err := vmIndex(m.vm.ID)
	if err != nil {
		return nil, err
	}
	vm := &m.vm
	r := &mib.VM{
		Index: index, Name: vm.Name, UUID: vm.UUID, OSType: vm.OSType,
		Admin: adminState(vm.Admin), Oper: operState(vm),
		AutoStart: mib.AutoStartDisabled, Persistent: mib.PersistentNo,
		CPUs: int32(min(vm.CPUs, math.MaxInt32)), Memory: vm.MemoryBytes,
		Started: time.Duration(vm.Started),
		Base:    totals(&vm.Past),
	}
	if vm.Autostart {
		r.AutoStart = mib.AutoStartEnabled
	}
	if vm.Persistent {
		r.Persistent = mib.PersistentYes
	}
	for i := range vm.Disks {
		r.Disks = append(r.Disks, disk(&vm.Disks[i]))
	}
	for i := range vm.NICs {
		n := &vm.NICs[i]
		r.NICs = append(r.NICs, mib.NIC{
			IfIndex: int32(min(n.IfIndex, math.MaxInt32)), Parent: int32(min(n.BridgeIndex, math.MaxInt32)),
			Model: "virtio", MAC: n.MAC[:],
		})
	}
	if m.run != nil {
		r.Counters = m.run
		r.Affinity = affinity(m.run.pid, vm.CPUs)
	}
	return r, nil
}

func adminState(a vmop.Admin) mib.AdminState {
	switch a {
	case vmop.AdminRunning:
		return mib.AdminRunning
	case vmop.AdminPaused:
		return mib.AdminPaused
	}
	return mib.AdminShutdown
}

// operState: a VM that waits for its turn or is being started is not scheduled
// and has no memory yet, unless it is being received. preparing(3) is for
// storage that is being made.
func operState(vm *vmop.VM) mib.OperState {
	if vm.Receiving {
		return mib.OperMigrating
	}
	switch vm.State {
	case vmop.Stopped, vmop.Waiting, vmop.Starting:
		return mib.OperShutdown
	case vmop.Running:
		return mib.OperRunning
	case vmop.Paused:
		return mib.OperPaused
	case vmop.Stopping:
		return mib.OperShuttingDown
	case vmop.Crashed:
		return mib.OperCrashed
	case vmop.Migrating:
		return mib.OperMigrating
	}
	return mib.OperUnknown
}

func disk(d *vmop.Disk) mib.Disk {
	m := mib.Disk{
		SourceName: d.Format, Path: d.Path,
		Access: mib.AccessReadWrite, Media: mib.MediaHard, MediaName: "virtio-blk",
		Defined: d.Size, Allocated: d.Used,
	}
	switch d.Format {
	case "raw":
		m.Source = mib.SourceRaw
	case "qcow2":
		m.Source = mib.SourceSparse
	case "block":
		m.Source = mib.SourceBlock
	default:
		m.Source = mib.SourceOther
	}
	if d.ReadOnly {
		m.Access = mib.AccessReadOnly
	}
	if d.CDROM {
		m.Access, m.Media, m.MediaName = mib.AccessReadOnly, mib.MediaOptical, "virtio-scsi"
	}
	return m
}

func totals(p *vmop.Totals) mib.Totals {
	t := mib.Totals{CPUTime: p.CPU, VCPUs: p.VCPU}
	for _, d := range p.Disks {
		t.Disks = append(t.Disks, mib.DiskCounters{
			ReadOps: d.ReadOps, WriteOps: d.WriteOps, ReadBytes: d.ReadBytes, WriteBytes: d.WriteBytes,
			ReadWait: d.ReadNanos, WriteWait: d.WriteNanos,
		})
	}
	return t
}

// affinity is the mask of the VM's process for each of its vCPUs: their threads
// have it from there.
func affinity(pid, cpus int) []mib.CPUMask {
	var set unix.CPUSet
	if pid == 0 || cpus < 0 || cpus > counters.MaxVCPUs || unix.SchedGetaffinity(pid, &set) != nil {
		return nil
	}
	mask := make(mib.CPUMask, len(set))
	for i, word := range set {
		mask[i] = uint64(word)
	}
	masks := make([]mib.CPUMask, cpus)
	for i := range masks {
		masks[i] = mask
	}
	return masks
}

// run reads what a VM uses in its present run. The page stays mapped for as long
// as a record, or a view that a manager is walking, has the run.
type run struct {
	page *counters.Reader
	pid  int
	cpu  atomic.Uint64 // the most that CPUTime has returned
}

// openRun maps the counter page in f. pid is 0 where it is not known.
func openRun(f *os.File, pid int) (*run, error) {
	page, err := counters.Open(f)
	if err != nil {
		return nil, err
	}
	r := &run{page: page, pid: pid}
	runtime.AddCleanup(r, func(page *counters.Reader) { _ = page.Close() }, page)
	return r, nil
}

// CPUTime keeps its last value when the process is gone: parent's word that the
// run has ended is still to come.
func (r *run) CPUTime() uint64 {
	last := r.cpu.Load()
	if r.pid == 0 {
		return last
	}
	d, err := counters.ProcessCPU(r.pid)
	if err != nil || uint64(d) <= last {
		return last
	}
	r.cpu.Store(uint64(d))
	return uint64(d)
}

// VCPUTime is the CPU time of one vCPU in this run.
func (r *run) VCPUTime(i int) uint64 {
	n := r.page.VCPU(i)
	runtime.KeepAlive(r) // the page is unmapped when r is garbage
	return n
}

// Disk is what one disk did in this run.
func (r *run) Disk(i int) mib.DiskCounters {
	d := r.page.Disk(i)
	runtime.KeepAlive(r)
	return mib.DiskCounters{
		ReadOps: d.ReadOps, WriteOps: d.WriteOps, ReadBytes: d.ReadBytes, WriteBytes: d.WriteBytes,
		ReadWait: d.ReadNS, WriteWait: d.WriteNS,
	}
}
