package vm

import (
	"errors"
	"os"

	"github.com/rs/zerolog"

	"vmd/hv/machine"
	"vmd/internal/counters"
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
	return sevCode(err, vmop.ErrHypervisor)
}

// build makes the machine of what the process was given.
func (v *vm) build() error {
	if err := v.newMachine(); err != nil {
		return err
	}
	if err := v.addDevices(); err != nil {
		return err
	}
	return v.load()
}

// newMachine makes the machine without its devices.
func (v *vm) newMachine() error {
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
	c := v.config(kvm)
	if c.SEV, err = v.encrypt(); err != nil {
		return err
	}
	v.machine, err = machine.New(c)
	if err != nil {
		return err
	}
	v.console.type_ = v.machine.ConsoleInput
	return nil
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
		Sampled:      v.sampler(),
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

// warner logs what a guest does wrong, but no more than a few lines a minute:
// the guest chooses how often.
func (v *vm) warner() func(dev, msg string) {
	log := v.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: warnPeriod})
	return func(dev, msg string) {
		log.Warn().Str("dev", dev).Str("what", msg).Msg("guest broke a device's rules")
	}
}
