package vm

import (
	"errors"
	"fmt"

	"vmd/hv/boot"
	"vmd/hv/machine"
	"vmd/internal/vmop"
)

// bootDevices are what firmware can be told to boot from, by their names in
// vm.conf.
var bootDevices = map[string]machine.BootDevice{
	"":      machine.BootAny,
	"disk":  machine.BootDisk,
	"cdrom": machine.BootCD,
	"net":   machine.BootNet,
}

// load gives the machine what it is to start with.
func (v *vm) load() error {
	b, code, err := v.whatToBoot()
	if err != nil {
		return err
	}
	if err := v.machine.Load(b); err != nil {
		return &coded{sevCode(err, code), err}
	}
	v.logLaunch()
	for _, n := range []string{"kernel", "initrd", "firmware", "netrom", "sev"} {
		if f := v.files.take(n); f != nil {
			f.Close()
		}
	}
	return nil
}

// whatToBoot is the kernel that came with its initrd, or the firmware. A file
// that is given as a kernel and is none is taken for firmware (vm.conf(5),
// boot). code is for when it cannot be loaded.
func (v *vm) whatToBoot() (b machine.Boot, code vmop.Code, err error) {
	b = machine.Boot{Cmdline: v.spec.Cmdline, Device: bootDevices[v.spec.BootDevice]}
	kernel, err := v.image("kernel")
	if err != nil {
		return b, 0, err
	}
	if b.Initrd, err = v.image("initrd"); err != nil {
		return b, 0, err
	}
	net := b.Device == machine.BootNet && len(v.spec.NICs) > 0
	code = vmop.ErrKernel
	switch {
	case kernel == nil:
		code = vmop.ErrNoFirmware
		if b.Firmware, err = v.image("firmware"); err == nil && b.Firmware == nil {
			err = &coded{code, errors.New("neither a kernel nor firmware was given")}
		}
	case boot.IsFirmware(*kernel):
		if b.Initrd != nil || b.Cmdline != "" {
			return b, 0, &coded{code, errors.New("the boot file is no kernel but firmware, which takes no initrd and no cmdline")}
		}
		b.Firmware = kernel
	default:
		b.Kernel = *kernel
		if net {
			b.NetMAC = &v.spec.NICs[0].MAC // an installer then believes it was netbooted
		}
	}
	if err == nil && net && b.Firmware != nil {
		b.NetROM, err = v.netROM()
	}
	return b, code, err
}

// netROM is what firmware boots from the network with.
func (v *vm) netROM() ([]byte, error) {
	file, err := v.image("netrom")
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, &coded{vmop.ErrNoBootROM, errors.New("boot device net needs a network boot ROM, and the host has none")}
	}
	b, err := boot.NetROM(*file)
	if err != nil {
		return nil, &coded{vmop.ErrNoBootROM, err}
	}
	return b, nil
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
