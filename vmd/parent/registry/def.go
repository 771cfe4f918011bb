package registry

import (
	"slices"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// clone returns a copy of d that shares nothing with it.
func clone(d *config.VM) config.VM {
	c := *d
	c.Disks = slices.Clone(d.Disks)
	c.NICs = slices.Clone(d.NICs)
	return c
}

// changes are the words of vm.conf that have another value in a than in b, nil
// if a VM started from one would be that started from the other. Whether it
// starts by itself, and where it is written, make no difference.
func changes(a, b *config.VM) []string {
	var words []string
	for _, f := range []struct {
		word string
		same bool
	}{
		{"memory", a.MemoryBytes == b.MemoryBytes},
		{"cpus", a.CPUs == b.CPUs},
		{"boot", a.Boot == b.Boot},
		{"initrd", a.Initrd == b.Initrd},
		{"cmdline", a.Cmdline == b.Cmdline},
		{"boot device", a.BootDevice == b.BootDevice},
		{"cdrom", a.CDROM == b.CDROM},
		{"disk", slices.Equal(a.Disks, b.Disks)},
		{"interface", slices.Equal(a.NICs, b.NICs) && a.MinNICs == b.MinNICs},
		{"owner", a.Owner == b.Owner},
		{"instance", a.Allow == b.Allow && a.Parent == b.Parent},
		{"sev", a.SEV == b.SEV && a.SEVES == b.SEVES},
		{"virtio", a.Transitional == b.Transitional},
		{"limit", a.Limits == b.Limits},
		{"restart", a.Restart == b.Restart},
		{"uuid", a.UUID == b.UUID},
		{"os", a.OS == b.OS},
	} {
		if !f.same {
			words = append(words, f.word)
		}
	}
	return words
}

// groupOf is the group of o as messages have it: -1 for none.
func groupOf(o *config.Owner) int64 {
	if !o.HasGID {
		return -1
	}
	return int64(o.GID)
}

// forOneBoot reports whether m, a client's wish about a VM that is defined,
// changes only what can be changed for one boot.
func forOneBoot(m *vmop.Definition) bool {
	return m == nil || m.MemoryBytes == 0 && m.CDROM == "" && len(m.Disks) == 0 && len(m.NICs) == 0 && m.NICCount == 0
}

// override returns d as q wants it for one boot. With another kernel, the
// initrd and the command line of the old one make no sense.
func override(d *config.VM, q *vmop.StartRequest, boot config.BootDevice) config.VM {
	c := clone(d)
	if boot != config.BootAuto {
		c.BootDevice = boot
	}
	m := q.Define
	if m == nil {
		return c
	}
	if m.CPUs != 0 {
		c.CPUs = m.CPUs
	}
	if m.Kernel != "" {
		c.Boot, c.Initrd, c.Cmdline = m.Kernel, "", ""
	}
	if m.Initrd != "" {
		c.Initrd = m.Initrd
	}
	if m.Cmdline != "" {
		c.Cmdline = m.Cmdline
	}
	return c
}

// again returns what a VM is started with after its guest's reset. A kernel
// that was given for one boot is not used a second time, as on OpenBSD, except
// where there is nothing else to boot from.
func (r *run) again() (def config.VM, files []string) {
	def = clone(&r.Def)
	def.Boot, def.Initrd, def.Cmdline = r.Base.Boot, r.Base.Initrd, r.Base.Cmdline
	client := slices.Contains(r.Files, "kernel")
	if client && (len(def.Disks) > 0 || def.CDROM != "") && !r.Persistent {
		def.Boot, def.Initrd, def.Cmdline = "", "", ""
	}
	keep := client && def.Boot != "" && !r.Persistent
	for _, f := range r.Files {
		if keep || f != "kernel" && f != "initrd" {
			files = append(files, f)
		}
	}
	return def, files
}

// define makes a definition of a client's wish.
func define(name string, m *vmop.Definition, boot config.BootDevice) (config.VM, bool) {
	d := config.VM{
		Name: name, MemoryBytes: m.MemoryBytes, CPUs: m.CPUs, Boot: m.Kernel, Initrd: m.Initrd,
		Cmdline: m.Cmdline, CDROM: m.CDROM, BootDevice: boot, MinNICs: m.NICCount,
	}
	for _, disk := range m.Disks {
		f := config.FormatAuto
		switch disk.Format {
		case "":
		case "raw":
			f = config.FormatRaw
		case "qcow2":
			f = config.FormatQcow2
		default:
			return d, false
		}
		d.Disks = append(d.Disks, config.Disk{Path: disk.Path, Format: f})
	}
	for _, n := range m.NICs {
		d.NICs = append(d.NICs, config.NIC{Switch: n.Switch, Local: n.Local})
	}
	return d, true
}
