package config

import (
	"errors"
	"fmt"
)

// What Instantiate's errors are: refused for want of a permission, or because
// the instance would share what belongs to its parent alone.
var (
	ErrNotAllowed = errors.New("the parent does not allow it")
	ErrShared     = errors.New("it belongs to the parent")
)

// Instantiate makes v, which says only what differs, an instance of parent on
// behalf of user uid: what v does not say it gets from parent, except disks,
// MAC addresses and names of taps. Root may say anything; others what the
// parent allows. Whether uid may make instances of parent at all, and whether
// the name is free, is for the caller to check first.
//
// A caller that acts for another user sets v.Owner to that user; for root it
// leaves OwnerSet false, and the parent's owner owns the instance.
func (v *VM) Instantiate(parent *VM, uid uint32) error {
	allowed := func(o Option) bool { return uid == 0 || parent.Allow.Options&o != 0 }
	steps := []func(*VM, uint32, func(Option) bool) error{
		v.inheritSizes, v.inheritDisks, v.inheritNICs, v.inheritBoot, v.inheritOwner, v.inheritRest,
	}
	for _, step := range steps {
		if err := step(parent, uid, allowed); err != nil {
			return fmt.Errorf("instance of %s: %w", clip(parent.Name), err)
		}
	}
	v.Parent = parent.Name
	v.SetDefaults()
	return nil
}

func (v *VM) inheritSizes(parent *VM, _ uint32, allowed func(Option) bool) error {
	if v.CPUs == 0 {
		v.CPUs = parent.CPUs
	}
	if v.CPUs != parent.CPUs && !allowed(AllowCPUs) {
		return fmt.Errorf("set cpus: %w", ErrNotAllowed)
	}
	if v.MemoryBytes == 0 {
		v.MemoryBytes = parent.MemoryBytes
	}
	if v.MemoryBytes != parent.MemoryBytes && !allowed(AllowMemory) {
		return fmt.Errorf("set memory: %w", ErrNotAllowed)
	}
	return nil
}

// inheritDisks inherits none: two VMs cannot write to one image.
func (v *VM) inheritDisks(parent *VM, _ uint32, allowed func(Option) bool) error {
	if len(v.Disks) > 0 && !allowed(AllowDisk) {
		return fmt.Errorf("set disk: %w", ErrNotAllowed)
	}
	for _, d := range v.Disks {
		for _, e := range parent.Disks {
			if d.Path == e.Path {
				return fmt.Errorf("disk %s: %w", clip(d.Path), ErrShared)
			}
		}
	}
	return nil
}

// inheritNICs copies the interfaces that v does not have. OpenBSD only looks at
// their number; here whoever may not set interfaces may not move one to another
// switch either.
func (v *VM) inheritNICs(parent *VM, _ uint32, allowed func(Option) bool) error {
	if !allowed(AllowInterface) {
		same := len(v.NICs) == 0 || len(v.NICs) == len(parent.NICs)
		for i := 0; same && i < len(v.NICs); i++ {
			same = v.NICs[i] == parent.NICs[i].copyForInstance()
		}
		if !same || v.MinNICs > len(parent.NICs) {
			return fmt.Errorf("set interfaces: %w", ErrNotAllowed)
		}
	}
	for i := range v.NICs {
		for j := range parent.NICs {
			n, o := &v.NICs[i], &parent.NICs[j]
			if n.MAC != [6]byte{} && n.MAC == o.MAC {
				return fmt.Errorf("lladdr of interface %d: %w", i, ErrShared)
			}
			if n.Tap != "" && n.Tap == o.Tap {
				return fmt.Errorf("interface %s: %w", n.Tap, ErrShared)
			}
		}
	}
	for i := len(v.NICs); i < len(parent.NICs); i++ {
		v.NICs = append(v.NICs, parent.NICs[i].copyForInstance())
	}
	return nil
}

// copyForInstance returns n without what only one VM can have.
func (n *NIC) copyForInstance() NIC {
	c := *n
	c.MAC, c.Tap = [6]byte{}, ""
	return c
}

// inheritBoot inherits the kernel with its initrd and arguments, or none of
// them, and the CD.
func (v *VM) inheritBoot(parent *VM, _ uint32, allowed func(Option) bool) error {
	if (v.Boot != "" || v.Initrd != "" || v.Cmdline != "") && !allowed(AllowBoot) {
		return fmt.Errorf("set boot: %w", ErrNotAllowed)
	}
	if v.Boot == "" {
		v.Boot = parent.Boot
		if v.Initrd == "" {
			v.Initrd = parent.Initrd
		}
		if v.Cmdline == "" {
			v.Cmdline = parent.Cmdline
		}
	}
	if v.CDROM != "" && !allowed(AllowCDROM) {
		return fmt.Errorf("set cdrom: %w", ErrNotAllowed)
	}
	if v.CDROM == "" {
		v.CDROM = parent.CDROM
	}
	return nil
}

func (v *VM) inheritOwner(parent *VM, uid uint32, _ func(Option) bool) error {
	switch {
	case !v.OwnerSet:
		v.Owner, v.OwnerSet = parent.Owner, parent.OwnerSet
	case uid == 0: // root gives it to anybody
	case v.Owner.UID != uid && v.Owner.UID != parent.Owner.UID:
		return fmt.Errorf("set owner: %w", ErrNotAllowed)
	case !v.Owner.HasGID:
		v.Owner.GID, v.Owner.HasGID = parent.Owner.GID, parent.Owner.HasGID
	case !parent.Owner.HasGID || v.Owner.GID != parent.Owner.GID:
		return fmt.Errorf("set owner group: %w", ErrNotAllowed)
	}
	return nil
}

// inheritRest inherits what no client can say, and the right to make further
// instances if the parent passes it on.
func (v *VM) inheritRest(parent *VM, _ uint32, _ func(Option) bool) error {
	if v.Allow != (Allow{}) {
		return fmt.Errorf("set allow instance: %w", ErrNotAllowed)
	}
	if parent.Allow.Options&AllowInstance != 0 {
		v.Allow = parent.Allow
	}
	v.SEV, v.SEVES = v.SEV || parent.SEV, v.SEVES || parent.SEVES
	if !v.VirtioSet {
		v.Transitional, v.VirtioSet = parent.Transitional, parent.VirtioSet
	}
	l, m := &v.Limits, &parent.Limits
	if l.CPUPercent == 0 {
		l.CPUPercent = m.CPUPercent
	}
	if l.MemoryHigh == 0 {
		l.MemoryHigh = m.MemoryHigh
	}
	if l.IORead == 0 {
		l.IORead = m.IORead
	}
	if l.IOWrite == 0 {
		l.IOWrite = m.IOWrite
	}
	if !v.Restart.Set {
		v.Restart = parent.Restart
	}
	if v.OS == "" {
		v.OS = parent.OS
	}
	return nil
}
