package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"vmd/internal/scaled"
)

// ErrNothingToBoot is Validate's for a VM without kernel, disk and CD, and that
// does not boot from the network.
var ErrNothingToBoot = errors.New("there is no boot image, disk or cdrom")

// CheckName checks the name of a VM: 1 to MaxName bytes, letters, digits, ".",
// "-" and "_", the first a letter or a digit. A name of digits only is refused
// because vmctl(8) would take it for an id.
func CheckName(s string) error {
	switch {
	case s == "":
		return errors.New("the name of the vm is empty")
	case len(s) > MaxName:
		return fmt.Errorf("vm name %s is longer than %d bytes", clip(s), MaxName)
	case strings.IndexByte(".-_", s[0]) >= 0:
		return fmt.Errorf("vm name %s begins with neither a letter nor a digit", clip(s))
	}
	digits := 0
	for i := 0; i < len(s); i++ {
		switch c := int(s[i]); {
		case isDigit(c):
			digits++
		case isAlnum(c) || strings.IndexByte(".-_", s[i]) >= 0:
		default:
			return fmt.Errorf("vm name %s has other bytes than letters, digits, \".\", \"-\" and \"_\"", clip(s))
		}
	}
	if digits == len(s) {
		return fmt.Errorf("vm name %s is a number: it could not be told from an id", clip(s))
	}
	return nil
}

// SetDefaults fills in what nobody said. An instance gets its parent's
// settings first: see Instantiate.
func (v *VM) SetDefaults() {
	if v.MemoryBytes == 0 {
		v.MemoryBytes = DefaultMemory
	}
	if v.CPUs == 0 {
		v.CPUs = 1
	}
	for len(v.NICs) < min(v.MinNICs, MaxNICs) {
		v.NICs = append(v.NICs, NIC{})
	}
}

// Validate checks a complete definition, whether it came from a file or from a
// client, and returns the first thing that is wrong with it. It looks at no
// file.
func (v *VM) Validate() error {
	if err := CheckName(v.Name); err != nil {
		return err
	}
	if err := v.checkCounts(); err != nil {
		return err
	}
	if err := v.checkImages(); err != nil {
		return err
	}
	for i := range v.NICs {
		if err := v.checkNIC(i); err != nil {
			return fmt.Errorf("interface %d: %w", i, err)
		}
	}
	if len(v.OS) > MaxOS || hasControl(v.OS) || !utf8.ValidString(v.OS) {
		return fmt.Errorf("os %s is longer than %d bytes or not plain UTF-8 text", clip(v.OS), MaxOS)
	}
	return nil
}

func (v *VM) checkCounts() error {
	switch {
	case v.CPUs < 1 || v.CPUs > MaxCPUs:
		return fmt.Errorf("number of CPUs %d is out of range: 1 to %d", v.CPUs, MaxCPUs)
	case len(v.Disks) > MaxDisks:
		return fmt.Errorf("too many disks (limit is %d)", MaxDisks)
	case len(v.NICs) > MaxNICs || v.MinNICs > MaxNICs:
		return fmt.Errorf("too many interfaces (limit is %d)", MaxNICs)
	case v.MemoryBytes < MinMemory:
		return fmt.Errorf("memory size must be at least %s", short(MinMemory))
	case v.MemoryBytes > MaxMemory:
		return fmt.Errorf("memory size is too large (limit is %s)", scaled.Format(MaxMemory))
	case v.MemoryBytes%(1<<20) != 0:
		return fmt.Errorf("memory size %d is not a whole number of MiB", v.MemoryBytes)
	case v.SEV && v.Transitional:
		// A driver of 0.9 cannot say that it gives addresses the device can
		// use (virtio 1.3, 6, VIRTIO_F_ACCESS_PLATFORM).
		return errors.New("virtio transitional and encrypted memory exclude each other")
	}
	return nil
}

// NetBoot says whether the VM is to boot from the network by an interface of its
// own, and not only as if.
func (v *VM) NetBoot() bool { return v.Boot == "" && v.BootDevice == BootNet && len(v.NICs) > 0 }

// checkImages checks what the VM boots from and reads.
func (v *VM) checkImages() error {
	for i, d := range v.Disks {
		if err := checkPath(d.Path); err != nil {
			return fmt.Errorf("disk %d: %w", i, err)
		}
		for _, e := range v.Disks[:i] {
			if d.Path == e.Path {
				return fmt.Errorf("disk %s is given twice", clip(d.Path))
			}
		}
	}
	for _, f := range []struct{ what, path string }{{"boot", v.Boot}, {"initrd", v.Initrd}, {"cdrom", v.CDROM}} {
		if f.path == "" {
			continue
		}
		if err := checkPath(f.path); err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
	}
	switch {
	case v.Boot == "" && len(v.Disks) == 0 && v.CDROM == "" && !v.NetBoot():
		return ErrNothingToBoot
	case v.Boot == "" && v.Initrd != "":
		return errors.New("initrd needs boot: firmware loads no initrd")
	case v.Boot == "" && v.Cmdline != "":
		return errors.New("cmdline needs boot: firmware passes no arguments")
	case len(v.Cmdline) > MaxCmdline || hasControl(v.Cmdline):
		return fmt.Errorf("cmdline is longer than %d bytes or has control bytes", MaxCmdline)
	}
	return nil
}

func checkPath(s string) error {
	switch {
	case s == "":
		return errors.New("path is empty")
	case len(s) > MaxPath:
		return fmt.Errorf("path is longer than %d bytes", MaxPath)
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("path has a NUL in it")
	case !utf8.ValidString(s):
		return errors.New("path is not UTF-8: it could not be told to anybody")
	}
	return nil
}

func (v *VM) checkNIC(i int) error {
	n := &v.NICs[i]
	switch {
	case n.Tap != "" && !isTap(n.Tap):
		return fmt.Errorf("%s is not tap and a number", clip(n.Tap))
	case len(n.Switch) > MaxName:
		return fmt.Errorf("switch name %s is longer than %d bytes", clip(n.Switch), MaxName)
	case groupError(n.Group) != "":
		return fmt.Errorf("group %s: %s", clip(n.Group), groupError(n.Group))
	case n.RDomain.Set && (n.RDomain.ID < 0 || n.RDomain.ID > MaxRDomain):
		return fmt.Errorf("rdomain %d is out of range: 0 to %d", n.RDomain.ID, MaxRDomain)
	}
	for j := range v.NICs[:i] {
		if n.Tap != "" && n.Tap == v.NICs[j].Tap {
			return fmt.Errorf("%s is interface %d already", n.Tap, j)
		}
	}
	return nil
}
