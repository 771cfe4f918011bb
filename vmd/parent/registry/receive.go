package registry

import (
	"fmt"
	"path/filepath"
	"slices"

	"vmd/internal/notation"
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// receive takes a guest in from another host. Whatever can be known to be wrong
// is said before anything has been changed.
func (r *Registry) receive(q Request, m vmop.ReceiveRequest) {
	v := r.names[m.Name]
	switch {
	case r.down:
		r.refuse(q.From, nil, vmop.ErrUnavailable, "vmd is shutting down")
		return
	case v != nil && v.run != nil && v.run.stopping:
		r.refuse(q.From, v, vmop.ErrStopping, "it is being stopped")
		return
	case v != nil && v.run != nil:
		r.refuse(q.From, v, vmop.ErrRunning, "it is running")
		return
	}
	def, why := r.received(v, &m)
	if why == "" {
		why = r.clash(v, &m.Guest)
		if why != "" {
			r.refuse(q.From, v, vmop.ErrShared, why)
			return
		}
	}
	if why != "" {
		r.refuse(q.From, v, vmop.ErrInvalid, why)
		return
	}
	if err := def.Validate(); err != nil {
		r.refuse(q.From, v, codeOf(err), err.Error())
		return
	}
	if v == nil {
		v = &vm{known: r.know(def.Name, 0), def: clone(&def)}
		if r.vms[v.known.ID] != nil {
			r.refuse(q.From, nil, vmop.ErrBusy, "the VM of that name before it is not gone yet")
			return
		}
		r.add(v)
	}
	r.getProcess(v, def, q.From, nil, &m.Guest)
}

// received is the definition with which the guest of m runs here: v's, if there
// is one, or the guest's own. why says what does not fit.
func (r *Registry) received(v *vm, m *vmop.ReceiveRequest) (def config.VM, why string) {
	g := &m.Guest
	if why := plausible(g); why != "" {
		return def, why
	}
	if len(m.Disks) > 0 && len(m.Disks) != len(g.Disks) {
		return def, fmt.Sprintf("the guest has %d disks, and %d paths are given", len(g.Disks), len(m.Disks))
	}
	if v != nil {
		if len(m.Disks) > 0 {
			return def, "the VM is defined in vm.conf, with the paths of its disks"
		}
		def = clone(&v.def)
		if why := differs(&def, g); why != "" {
			return def, why
		}
	} else {
		def = definitionOf(g)
		def.Name = m.Name
	}
	for i := range def.Disks {
		if len(m.Disks) > 0 {
			def.Disks[i].Path = m.Disks[i]
		}
		if !filepath.IsAbs(def.Disks[i].Path) {
			return def, fmt.Sprintf("disk %d: path %q is not absolute", i, def.Disks[i].Path)
		}
		def.Disks[i].Format = formatOf(g.Disks[i].Format)
	}
	def.UUID = g.UUID
	for i := range def.NICs {
		def.NICs[i].MAC = g.NICs[i].MAC
	}
	return def, ""
}

// plausible says what is wrong with a guest whatever is defined here.
func plausible(g *vmop.Guest) string {
	queues := 0
	for i, n := range g.NICs {
		if n.MAC == ([6]byte{}) || n.MAC[0]&1 != 0 {
			return fmt.Sprintf("interface %d of the guest has the address %s", i, notation.MAC(n.MAC))
		}
		if n.Queues < 1 || n.MTU < 0 || n.MTU > 65535 {
			return fmt.Sprintf("interface %d of the guest has %d queues and an MTU of %d", i, n.Queues, n.MTU)
		}
		queues += min(n.Queues, vmop.MaxQueues+1)
	}
	switch {
	case g.UUID == [16]byte{}:
		return "the guest has no uuid"
	case queues > vmop.MaxQueues:
		return fmt.Sprintf("the guest's interfaces have more than %d queues", vmop.MaxQueues)
	case len(g.NICs) > config.MaxNICs:
		return fmt.Sprintf("the guest has %d interfaces, the limit is %d", len(g.NICs), config.MaxNICs)
	case len(g.Disks) > config.MaxDisks:
		return fmt.Sprintf("the guest has %d disks, the limit is %d", len(g.Disks), config.MaxDisks)
	}
	for i, d := range g.Disks {
		if formatOf(d.Format) == config.FormatAuto || d.Size < 0 || d.Size%512 != 0 || len(d.Serial) > vmop.MaxSerial {
			return fmt.Sprintf("disk %d of the guest has the format %q and %d bytes", i, d.Format, d.Size)
		}
	}
	return ""
}

// formatOf is the format of a disk by its name; FormatAuto if there is none.
func formatOf(s string) config.Format {
	for _, f := range []config.Format{config.FormatRaw, config.FormatQcow2} {
		if f.String() == s {
			return f
		}
	}
	return config.FormatAuto
}

// differs says in which way guest g is not the VM that is defined as d.
func differs(d *config.VM, g *vmop.Guest) string {
	switch {
	case d.MemoryBytes != g.MemoryBytes:
		return fmt.Sprintf("it is defined with %d MiB of memory, the guest has %d MiB", d.MemoryBytes>>20, g.MemoryBytes>>20)
	case d.CPUs != g.CPUs:
		return fmt.Sprintf("it is defined with %d CPUs, the guest has %d", d.CPUs, g.CPUs)
	case len(d.Disks) != len(g.Disks):
		return fmt.Sprintf("it is defined with %d disks, the guest has %d", len(d.Disks), len(g.Disks))
	case len(d.NICs) != len(g.NICs):
		return fmt.Sprintf("it is defined with %d interfaces, the guest has %d", len(d.NICs), len(g.NICs))
	case (d.CDROM == "") != (g.CDROM == ""):
		return "either its definition or the guest has a CD-ROM drive, the other has none"
	case d.UUID != ([16]byte{}) && d.UUID != g.UUID:
		return fmt.Sprintf("it is defined with the uuid %s, the guest has %s", notation.UUID(d.UUID), notation.UUID(g.UUID))
	case d.SEV:
		return "it is defined with encrypted memory"
	case d.Transitional != g.Transitional:
		return fmt.Sprintf("it is defined with virtio %s, the guest has virtio %s", virtio(d.Transitional), virtio(g.Transitional))
	}
	for i := range d.Disks {
		if f := d.Disks[i].Format; f != config.FormatAuto && f.String() != g.Disks[i].Format {
			return fmt.Sprintf("its disk %d is defined as %s, the guest's is %s", i, f, g.Disks[i].Format)
		}
	}
	for i := range d.NICs {
		if m := d.NICs[i].MAC; m != ([6]byte{}) && m != g.NICs[i].MAC {
			return fmt.Sprintf("its interface %d is defined with the address %s, the guest's is %s", i, notation.MAC(m), notation.MAC(g.NICs[i].MAC))
		}
		if d.NICs[i].Local != g.NICs[i].Local {
			return fmt.Sprintf("interface %d is a local one either here or in the guest", i)
		}
	}
	return ""
}

// virtio is the word of vm.conf for devices of a kind.
func virtio(transitional bool) string {
	if transitional {
		return "transitional"
	}
	return "modern"
}

// definitionOf is the definition that a guest brings along.
func definitionOf(g *vmop.Guest) config.VM {
	d := config.VM{
		MemoryBytes: g.MemoryBytes, CPUs: g.CPUs, OS: g.OSType,
		Boot: g.Kernel, Initrd: g.Initrd, Cmdline: g.Cmdline, CDROM: g.CDROM,
		Transitional: g.Transitional,
	}
	if g.NetBoot {
		d.BootDevice = config.BootNet
	}
	for _, disk := range g.Disks {
		d.Disks = append(d.Disks, config.Disk{Path: disk.Path})
	}
	for _, n := range g.NICs {
		d.NICs = append(d.NICs, config.NIC{Switch: n.Switch, Local: n.Local})
	}
	return d
}

// clash says which VM other than v has an address of guest g. One that is just
// being sent may be the same guest.
func (r *Registry) clash(v *vm, g *vmop.Guest) string {
	for _, o := range r.order {
		if o == v || o.run == nil || o.state == vmop.Migrating {
			continue
		}
		for i := range o.run.Def.NICs {
			mac := o.known.mac(&o.run.Def, i)
			if slices.ContainsFunc(g.NICs, func(n vmop.GuestNIC) bool { return n.MAC == mac }) {
				return fmt.Sprintf("the address %s of the guest is that of %s", notation.MAC(mac), o.def.Name)
			}
		}
	}
	return ""
}

// keepIdentity has v go on under the addresses and the uuid that its guest came
// with, also when it is started next, as far as the configuration does not set
// them.
func (r *Registry) keepIdentity(v *vm) {
	def := &v.run.Def
	v.known.UUID = def.UUID
	for len(v.known.MACs) < len(def.NICs) {
		v.known.MACs = append(v.known.MACs, [6]byte{})
	}
	for i := range def.NICs {
		v.known.MACs[i] = def.NICs[i].MAC
	}
}
