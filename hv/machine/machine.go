// Package machine is the PC that a guest runs on: memory, vCPUs and their
// threads, chipset, PCI bus, interrupts. It puts the other packages of hv
// together and adds no device of its own.
//
// A Machine is built by New, AddVirtio and Load, in this order, then runs once:
// Start, any number of Pause and Resume, until the guest ends or Stop is called,
// and Done is closed. A guest that resets has ended too; whoever runs it builds
// another Machine. Close frees everything.
//
// What a guest does is counted, never logged.
package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vmd/hv/bus"
	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio/virtiopci"
)

// Config says what a Machine is to be.
type Config struct {
	// KVM is a descriptor of /dev/kvm. New takes it over and closes it: a
	// running machine does not need it.
	KVM int

	Memory uint64 // bytes, a multiple of 4 KiB
	CPUs   int    // 1 to MaxCPUs, if the host agrees

	UUID [16]byte // the guest finds it in its SMBIOS tables

	SEV SEV // encrypted memory; the zero value is none

	// Console takes what the guest writes to COM1, byte by byte, on a vCPU's
	// thread: it must not block. ConsoleReady is called, on a vCPU's thread
	// too, when the guest has read what ConsoleInput left. Both may be nil.
	Console      io.Writer
	ConsoleReady func()

	// ButtonSeen is called when the guest has taken notice of PowerButton,
	// Panicked when it reports its own crash. Both are called on a vCPU's
	// thread, must not block, and may be nil.
	ButtonSeen func()
	Panicked   func()

	// Warn is told of guests that break a device's rules. It may be called
	// from any goroutine, must not block, and may be nil.
	Warn func(dev, msg string)

	// FirmwareLog takes what firmware writes to its debug port, as Console does;
	// nil tells firmware to keep it to itself.
	FirmwareLog io.Writer

	// Counters are where to count for each vCPU; none or fewer than CPUs will
	// do. Sampled is called each time the vCPUs' times have been brought up to
	// date, about once a second while it runs; it may be nil.
	Counters []VCPUCounters
	Sampled  func()
}

// MaxCPUs is the most vCPUs of a guest: local APIC ids have 8 bits, and 255 is
// everybody.
const MaxCPUs = 254

// Machine is a guest's PC. Its methods may be called from any goroutine.
type Machine struct {
	cfg   Config
	pid   int
	vm    *kvm.VM
	mem   *mem.Memory
	ports bus.Bus
	mmio  bus.Bus
	board board
	irqs  irqs

	encryption encryption

	posted kvm.Coalesced // port writes that have not been carried out yet

	pci     *pci.Bus
	windows pci.Windows
	rom     []byte           // firmware as the guest sees it; nil for a kernel
	netROM  []byte           // what it boots from the network with; nil for none
	cpuid   []kvm.CPUIDEntry // what KVM offers; nil once started
	timer   bool             // KVM_CAP_TSC_DEADLINE_TIMER

	physBits   int
	tscKHz     int
	bootDevice BootDevice
	saving     saving

	vcpus  []*vcpu
	virtio []*virtiopci.Function
	slots  []int // of virtio

	send sync.Mutex // held while Send runs; taken before ctl
	ctl  sync.Mutex // one Pause or Resume at a time; taken before mu

	clocks  clocks
	moving  bool    // Send has paused it: nobody else may resume; guarded by ctl
	arrived arrival // guarded by ctl

	mu      sync.Mutex
	changed sync.Cond // phase, parked or alive did
	phase   phase
	parked  int // vCPUs that wait in mayRun
	alive   int // vCPU threads
	exit    Exit
	unsend  func() // ends Send; nil while there is none
	done    chan struct{}
}

// New builds the PC: memory, vCPUs, and the parts on its board.
func New(c Config) (*Machine, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m := &Machine{cfg: c, pid: os.Getpid(), done: make(chan struct{})}
	m.changed.L = &m.mu
	sys, err := kvm.Open(c.KVM)
	if err != nil {
		return nil, err
	}
	if err := m.build(sys); err != nil {
		m.free()
		return nil, err
	}
	sys.Close()
	return m, nil
}

func (c *Config) check() error {
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return fmt.Errorf("%d vCPUs: a guest has 1 to %d", c.CPUs, MaxCPUs)
	}
	if c.Memory == 0 || c.Memory%4096 != 0 {
		return fmt.Errorf("%d bytes of memory: not a multiple of 4 KiB", c.Memory)
	}
	if err := c.SEV.check(c.CPUs); err != nil {
		return err
	}
	if c.Console == nil {
		c.Console = io.Discard
	}
	if c.Panicked == nil {
		c.Panicked = func() {}
	}
	if c.Sampled == nil {
		c.Sampled = func() {}
	}
	if c.Warn == nil {
		c.Warn = func(string, string) {}
	}
	return nil
}

// build follows the order that KVM wants: capabilities, memory, vCPUs, devices.
func (m *Machine) build(sys *kvm.System) (err error) {
	if max := sys.MaxVCPUs(); m.cfg.CPUs > max {
		return fmt.Errorf("%d vCPUs: this host gives a guest at most %d", m.cfg.CPUs, max)
	}
	if err := m.createVM(sys); err != nil {
		return err
	}
	m.enableCaps()
	if err := m.saving.init(sys, m.vm); err != nil {
		return err
	}
	if err := m.addMemory(); err != nil {
		return err
	}
	if err := m.addVCPUs(sys); err != nil {
		return err
	}
	m.irqs.init(m.vm)
	m.coalescePorts()
	return m.addBoard()
}

// enableCaps turns on what is good to have. None of it is needed.
func (m *Machine) enableCaps() {
	if m.vm.Check(kvm.KVM_CAP_EXIT_ON_EMULATION_FAILURE) != 0 {
		_ = m.vm.EnableCap(kvm.KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)
	}
	if m.vm.Check(kvm.KVM_CAP_PMU_CAPABILITY)&kvm.KVM_PMU_CAP_DISABLE != 0 {
		_ = m.vm.EnableCap(kvm.KVM_CAP_PMU_CAPABILITY, kvm.KVM_PMU_CAP_DISABLE)
	}
}

func (m *Machine) addMemory() (err error) {
	if m.mem, err = mem.Alloc(ramRanges(m.cfg.Memory)...); err != nil {
		return err
	}
	for slot, r := range m.mem.Regions() {
		if err := m.vm.SetMemory(uint32(slot), r.Base, r.Bytes, 0); err != nil {
			return err
		}
		if err := m.encryption.register(r.Bytes); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) addVCPUs(sys *kvm.System) error {
	var err error
	if m.cpuid, err = sys.SupportedCPUID(); err != nil {
		return err
	}
	m.timer = sys.Check(kvm.KVM_CAP_TSC_DEADLINE_TIMER) != 0
	for id := range m.cfg.CPUs {
		k, err := m.vm.CreateVCPU(id)
		if err != nil {
			return err
		}
		v := &vcpu{id: id, m: m, kvm: k}
		if id < len(m.cfg.Counters) {
			v.stat = m.cfg.Counters[id]
		}
		v.stat = v.stat.withDefaults()
		m.vcpus = append(m.vcpus, v)
		if err := v.init(); err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
	}
	return nil
}

// setSignatures changes who the vCPUs say they run on.
func (m *Machine) setSignatures(s signatures) error {
	for _, v := range m.vcpus {
		if err := v.setCPUID(s); err != nil {
			return fmt.Errorf("vCPU %d: %w", v.id, err)
		}
	}
	return nil
}

// Start lets the guest run: from its entry, or from where it was when the
// machine that Restore has taken over was paused.
func (m *Machine) Start() error { return m.start(running) }

// StartPaused is Start for a machine that was paused when it was sent: it stands
// still until Resume.
func (m *Machine) StartPaused() error { return m.start(paused) }

func (m *Machine) start(next phase) error {
	m.ctl.Lock()
	defer m.ctl.Unlock()
	if m.current() != built {
		return errors.New("the machine has been started before")
	}
	if err := m.encryption.mayStart(); err != nil {
		return err
	}
	switch {
	case m.arrived == complete:
		if err := m.goOn(next); err != nil {
			return err
		}
	case m.arrived != notReceived:
		return errPart
	case next != running:
		return errors.New("a machine that has not run cannot go on paused")
	case m.rom == nil:
		if err := m.pci.Assign(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.phase != built {
		return errors.New("the machine has been started before")
	}
	m.phase, m.cpuid = next, nil
	m.alive = len(m.vcpus)
	for _, v := range m.vcpus {
		go v.loop()
	}
	go m.supervise()
	return nil
}

// supervise sees the run to its end.
func (m *Machine) supervise() {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		m.sampleUntil(stop)
		close(stopped)
	}()
	m.mu.Lock()
	for m.alive > 0 {
		m.changed.Wait()
	}
	m.mu.Unlock()
	close(stop)
	<-stopped     // it looks at what Close frees
	m.pci.Reset() // devices end what they have in flight
	m.board.close()
	close(m.done)
}

// Close ends the run if need be, waits for it and frees the machine. The other
// methods must not be used any more.
func (m *Machine) Close() error {
	m.Stop()
	<-m.done
	m.endSend()
	return m.free()
}

// free takes apart what build and AddVirtio made, users before what they use.
func (m *Machine) free() error {
	var errs []error
	for _, f := range m.virtio {
		errs = append(errs, f.Close())
	}
	m.virtio = nil
	m.posted.Close()
	for _, v := range m.vcpus {
		errs = append(errs, v.kvm.Close())
	}
	m.vcpus = nil
	errs = append(errs, m.irqs.close())
	if m.vm != nil {
		errs = append(errs, m.vm.Close())
		m.vm = nil
	}
	if m.mem != nil {
		errs = append(errs, m.mem.Close())
		m.mem = nil
	}
	if m.rom != nil {
		errs = append(errs, unix.Munmap(m.rom))
		m.rom = nil
	}
	return errors.Join(errs...)
}

// Memory is the guest's RAM, for devices that are being built.
func (m *Machine) Memory() *mem.Memory { return m.mem }

// VCPUThreads returns the thread ids of the vCPUs that run, by number of the
// vCPU; 0 for one that does not.
func (m *Machine) VCPUThreads() []int {
	t := make([]int, len(m.vcpus))
	for i, v := range m.vcpus {
		t[i] = int(v.tid.Load())
	}
	return t
}

// PowerButton presses the power button and says whether the guest listens to
// it.
func (m *Machine) PowerButton() (listening bool) { return m.board.pm.PressPower() }

// ConsoleInput types p on COM1 and returns how many bytes the guest's serial
// port took. For the rest wait until Config.ConsoleReady is called.
func (m *Machine) ConsoleInput(p []byte) int { return m.board.uart.Input(p) }

// Break sends a break on COM1: Linux takes it for SysRq.
func (m *Machine) Break() { m.board.uart.Break() }
