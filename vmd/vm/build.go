package vm

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/rs/zerolog"

	"vmd/hv/boot"
	"vmd/hv/machine"
	"vmd/internal/counters"
	"vmd/internal/logging"
	"vmd/internal/vmop"
)

// coded is an error that a client has a code for.
type coded struct {
	code vmop.Code
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// codeOf is the code for err: its own, or that of a machine that cannot be
// built.
func codeOf(err error) vmop.Code {
	var c *coded
	if errors.As(err, &c) {
		return c.code
	}
	return vmop.ErrHypervisor
}

// build makes the machine of what the process was given.
func (v *vm) build() error {
	pagef, ok := v.files["counters"]
	if !ok {
		return errors.New(`descriptor "counters": not given`)
	}
	page, err := counters.Map(pagef)
	if err != nil {
		return err
	}
	v.page = page
	kvm, err := v.files.need("kvm")
	if err != nil {
		return err
	}
	v.machine, err = machine.New(v.config(kvm))
	if err != nil {
		return err
	}
	v.console.type_ = v.machine.ConsoleInput
	if err := v.addDevices(); err != nil {
		return err
	}
	return v.load()
}

// config describes the machine. It hands kvm over to the machine.
func (v *vm) config(kvm *os.File) machine.Config {
	// The machine closes the number; the file must not close it again.
	fd := detach(kvm)
	c := machine.Config{
		KVM:          fd,
		Memory:       v.spec.MemoryBytes,
		CPUs:         v.spec.CPUs,
		UUID:         v.spec.UUID,
		Console:      v.console.out,
		ConsoleReady: v.console.ready,
		ButtonSeen:   func() { v.Loop.Post(v.noticed) },
		Panicked:     func() { v.Log.Warn().Msg("guest reports that it crashed") },
		Warn:         v.warner(),
		Sampled:      func() { atomic.StoreUint64(&v.page.Updated, uint64(counters.Monotonic())) },
	}
	for i := range min(v.spec.CPUs, counters.MaxVCPUs) {
		k := machine.VCPUCounters{Time: &v.page.VCPU[i]}
		k.Exits[machine.ExitIO] = &v.page.Exits[counters.ExitPIO]
		k.Exits[machine.ExitMMIO] = &v.page.Exits[counters.ExitMMIO]
		k.Exits[machine.ExitSignal] = &v.page.Exits[counters.ExitInterrupted]
		k.Exits[machine.ExitOther] = &v.page.Exits[counters.ExitOther]
		c.Counters = append(c.Counters, k)
	}
	return c
}

// load puts the kernel into the guest's memory.
func (v *vm) load() error {
	kernel, err := v.image("kernel")
	if err != nil {
		return err
	}
	if kernel == nil {
		return &coded{vmop.ErrNoFirmware, errors.New("no kernel, and booting from firmware is not supported yet")}
	}
	initrd, err := v.image("initrd")
	if err != nil {
		return err
	}
	if err := v.machine.Load(machine.Boot{Kernel: *kernel, Initrd: initrd, Cmdline: v.spec.Cmdline}); err != nil {
		return &coded{vmop.ErrKernel, err}
	}
	for _, n := range []string{"kernel", "initrd"} {
		if f := v.files.take(n); f != nil {
			f.Close()
		}
	}
	return nil
}

// image is the file called name as something to load; nil if there is none.
func (v *vm) image(name string) (*boot.Image, error) {
	f := v.files[name]
	if f == nil {
		return nil, nil
	}
	st, err := f.Stat()
	if err != nil {
		return nil, &coded{vmop.ErrKernel, fmt.Errorf("%s: %w", name, err)}
	}
	return &boot.Image{R: f, Size: st.Size()}, nil
}

// warner logs what a guest does wrong, but no more than a few lines a minute:
// the guest chooses how often.
func (v *vm) warner() func(dev, msg string) {
	log := v.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: warnPeriod})
	return func(dev, msg string) {
		log.Warn().Str("dev", dev).Str("what", msg).Msg("guest broke a device's rules")
	}
}

func level(verbose bool) zerolog.Level { return logging.Level(verbose) }
