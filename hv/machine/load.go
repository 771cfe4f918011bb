package machine

import (
	"crypto/rand"
	"errors"

	"vmd/hv/boot"
)

// Boot says what a guest starts with.
type Boot struct {
	Kernel  boot.Image
	Initrd  *boot.Image // nil for none
	Cmdline string
}

// Load puts a kernel and the firmware tables into the guest's memory and makes
// the first vCPU start there. It follows the last AddVirtio.
func (m *Machine) Load(b Boot) error {
	m.mu.Lock()
	phase := m.phase
	m.mu.Unlock()
	if phase != built {
		return errors.New("load a kernel: the machine has been started")
	}
	rsdp, err := m.putTables()
	if err != nil {
		return err
	}
	seed := make([]byte, 32)
	rand.Read(seed)
	e, err := boot.Load(boot.Params{
		Mem: m.mem, Kernel: b.Kernel, Initrd: b.Initrd, Cmdline: b.Cmdline, RSDP: rsdp, Seed: seed,
	})
	if err != nil {
		return err
	}
	return setEntry(m.vcpus[0].kvm, e)
}
