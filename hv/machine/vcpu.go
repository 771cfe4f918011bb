package machine

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmd/hv/bus"
	"vmd/hv/kvm"
)

// vcpu is a virtual CPU and the thread that runs it.
type vcpu struct {
	id   int
	m    *Machine
	kvm  *kvm.VCPU
	tid  atomic.Int32 // of its thread, 0 until it runs
	stat VCPUCounters
	used int64 // CPU time at the last sample, ns; guarded by m.mu

	cpuid []kvm.CPUIDEntry // what it answers

	// deadline is what a received vCPU's TSC-deadline timer waits for: Start
	// sets it, once the TSC is right. 0 is none.
	deadline uint64
}

// init gives a new vCPU its CPUID and MSRs. KVM has made the first one ready to
// run and leaves the others waiting for INIT and SIPI.
func (v *vcpu) init() (err error) {
	if v.m.tscKHz, err = v.kvm.TSCKHz(); err != nil {
		return err
	}
	if err := v.setCPUID(kvmOnly); err != nil {
		return err
	}
	return v.kvm.SetMSRs(append([]kvm.MSR(nil), startMSRs...))
}

func (v *vcpu) setCPUID(s signatures) error {
	t := cpuTopology{id: v.id, count: v.m.cfg.CPUs, tscKHz: v.m.tscKHz, deadline: v.m.timer, sev: v.m.cfg.SEV.Kind}
	v.cpuid = guestCPUID(v.m.cpuid, t, s)
	return v.kvm.SetCPUID(v.cpuid)
}

// loop runs the vCPU until the machine stops. Its goroutine keeps its thread to
// itself and takes it along when it ends.
func (v *vcpu) loop() {
	runtime.LockOSThread()
	nameThread(fmt.Sprintf("vcpu%d", v.id))
	v.tid.Store(int32(unix.Gettid()))
	defer v.m.vcpuDone(v)
	for v.m.mayRun(v) {
		for {
			reason, err := v.kvm.Run()
			if err != nil {
				v.m.end(Error, v.report(err))
				break
			}
			if !v.handle(reason) {
				break
			}
		}
	}
}

// handle does what an exit asks for. False sends the loop to ask whether it may
// go on.
func (v *vcpu) handle(reason kvm.ExitReason) bool {
	v.m.drainPorts()
	switch reason {
	case kvm.KVM_EXIT_IO:
		v.stat.count(ExitIO)
		portIO(&v.m.ports, v.kvm.IO())
	case kvm.KVM_EXIT_MMIO:
		v.stat.count(ExitMMIO)
		addr, write, data := v.kvm.MMIO()
		if write {
			v.m.mmio.Write(addr, data)
		} else {
			v.m.mmio.Read(addr, data)
		}
	case 0, kvm.KVM_EXIT_INTR:
		v.stat.count(ExitSignal)
		return false
	default:
		v.stat.count(ExitOther)
		return v.handleRare(reason)
	}
	return true
}

// handleRare takes the exits that end a run.
func (v *vcpu) handleRare(reason kvm.ExitReason) bool {
	switch reason {
	case kvm.KVM_EXIT_SHUTDOWN:
		v.m.end(TripleFault, nil)
	case kvm.KVM_EXIT_SYSTEM_EVENT:
		v.systemEvent(v.kvm.SystemEvent())
	case kvm.KVM_EXIT_INTERNAL_ERROR:
		v.m.end(Error, v.report(v.kvm.InternalError()))
	case kvm.KVM_EXIT_FAIL_ENTRY:
		v.m.end(Error, v.report(v.kvm.EntryError()))
	case kvm.KVM_EXIT_HLT: // KVM's local APIC keeps these to itself
		return true
	default:
		v.m.end(Error, v.report(fmt.Errorf("KVM stopped for a reason unknown to us, %d", reason)))
	}
	return false
}

// systemEvent takes KVM_EXIT_SYSTEM_EVENT (api.rst, 5, kvm_run).
func (v *vcpu) systemEvent(kind uint32) {
	switch kind {
	case 1:
		v.m.end(PowerOff, nil)
	case 2:
		v.m.end(Reset, nil)
	case 6: // KVM_SYSTEM_EVENT_SEV_TERM
		v.m.end(Error, v.report(errors.New("the guest's own code for SEV has given up")))
	default:
		v.m.end(Error, v.report(fmt.Errorf("system event %d", kind)))
	}
}

// portIO carries out a port access. A string instruction is one exit with many
// items, all for the same port.
func portIO(ports *bus.Bus, x kvm.IO) {
	for ; x.Count > 0; x.Count-- {
		if x.Out {
			ports.Write(uint64(x.Port), x.Data[:x.Size])
		} else {
			ports.Read(uint64(x.Port), x.Data[:x.Size])
		}
		x.Data = x.Data[x.Size:]
	}
}

// kick makes the vCPU's thread leave the guest, and stay out until it has asked
// mayRun. The flag alone would do if the thread were just on its way into
// KVM_RUN, the signal alone if it were inside (api.rst, immediate_exit).
//
// The signal is Go's own for preemption: its handler exists, and expects to be
// called for nothing.
func (v *vcpu) kick() {
	v.kvm.Interrupt()
	if tid := v.tid.Load(); tid != 0 {
		_ = unix.Tgkill(v.m.pid, int(tid), unix.SIGURG)
	}
}
