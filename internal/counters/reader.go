package counters

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads a VM's page. Its methods may be called from any goroutine, not
// after Close.
type Reader struct{ page *Page }

// Close unmaps the page.
func (r *Reader) Close() error { return r.page.unmap() }

// Valid reports whether the page has the layout of this version.
func (r *Reader) Valid() bool { return atomic.LoadUint64(&r.page.Version) == Version }

// VCPU is the CPU time of vCPU i in nanoseconds.
func (r *Reader) VCPU(i int) uint64 {
	if i < 0 || i >= MaxVCPUs {
		return 0
	}
	return atomic.LoadUint64(&r.page.VCPU[i])
}

// Exits is how often the guest left for user space, by kind.
func (r *Reader) Exits(kind int) uint64 {
	if kind < 0 || kind >= ExitKinds {
		return 0
	}
	return atomic.LoadUint64(&r.page.Exits[kind])
}

// Memory is how many bytes of guest memory are in use.
func (r *Reader) Memory() uint64 { return atomic.LoadUint64(&r.page.Memory) }

// Guest is what the guest says of its memory.
func (r *Reader) Guest() Guest {
	g := &r.page.Guest
	return Guest{
		Total: atomic.LoadUint64(&g.Total), Free: atomic.LoadUint64(&g.Free), Available: atomic.LoadUint64(&g.Available),
		Balloon: atomic.LoadUint64(&g.Balloon), Reported: atomic.LoadUint64(&g.Reported),
	}
}

// Disk returns the counters of disk i.
func (r *Reader) Disk(i int) Disk {
	if i < 0 || i >= MaxDisks {
		return Disk{}
	}
	d := &r.page.Disk[i]
	return Disk{
		ReadOps: atomic.LoadUint64(&d.ReadOps), WriteOps: atomic.LoadUint64(&d.WriteOps), FlushOps: atomic.LoadUint64(&d.FlushOps),
		ReadBytes: atomic.LoadUint64(&d.ReadBytes), WriteBytes: atomic.LoadUint64(&d.WriteBytes),
		ReadNS: atomic.LoadUint64(&d.ReadNS), WriteNS: atomic.LoadUint64(&d.WriteNS),
		Errors: atomic.LoadUint64(&d.Errors),
	}
}

// NIC returns the counters of interface i.
func (r *Reader) NIC(i int) NIC {
	if i < 0 || i >= MaxNICs {
		return NIC{}
	}
	n := &r.page.NIC[i]
	return NIC{
		RxPackets: atomic.LoadUint64(&n.RxPackets), RxBytes: atomic.LoadUint64(&n.RxBytes), RxDrops: atomic.LoadUint64(&n.RxDrops),
		TxPackets: atomic.LoadUint64(&n.TxPackets), TxBytes: atomic.LoadUint64(&n.TxBytes), TxDrops: atomic.LoadUint64(&n.TxDrops),
	}
}

// ProcessCPU returns the CPU time of all threads of process pid. It needs no
// permission and no file: the clock of a process is readable by whoever sees
// its pid (clock_getcpuclockid(3); kernel/time/posix-cpu-timers.c).
func ProcessCPU(pid int) (time.Duration, error) {
	const cpuclockSched = 2 // CPUCLOCK_SCHED (include/linux/posix-timers.h)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds: the clock that processes of a
// host have in common.
func Monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
