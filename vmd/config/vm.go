package config

import (
	"io/fs"
	"maps"
	"slices"
	"strings"

	"vmd/internal/scaled"
)

// vmStatement is: vm STRING… [ instance STRING… ] { option … }
func (p *parser) vmStatement() (err error) {
	b := &vmBlock{p: p, vm: VM{File: p.lex.name, Line: p.last.line, Enabled: true}}
	v := &b.vm
	if v.Name, err = p.strs("the name of a vm"); err != nil {
		return err
	}
	defer func() {
		if err != nil && p.cfg.VM(v.Name) == nil {
			p.badVMs[v.Name] = true
		}
	}()
	if p.accept("instance") {
		v.Parent = v.Name
		if v.Name, err = p.strs("the name of the instance"); err != nil {
			return err
		}
	}
	if err := CheckName(v.Name); err != nil {
		return p.failAt(v.Line, "%v", err)
	}
	p.inVM = true
	err = p.block(b.option)
	p.inVM = false
	if err != nil {
		return err
	}
	return p.registerVM(v)
}

// registerVM makes a finished block part of the configuration. Instances are
// checked when every VM is known.
func (p *parser) registerVM(v *VM) error {
	if old := p.cfg.VM(v.Name); old != nil {
		return p.failAt(v.Line, "vm %s is already defined at %s:%d", clip(v.Name), old.File, old.Line)
	}
	if v.Parent == "" {
		v.SetDefaults()
		if err := v.Validate(); err != nil {
			return p.failAt(v.Line, "vm %s: %v", clip(v.Name), err)
		}
	}
	p.cfg.addVM(*v)
	return nil
}

// vmBlock is a VM while its block is read: what is said once is marked in seen.
type vmBlock struct {
	p    *parser
	vm   VM
	seen map[string]bool
}

// once marks an option that may be given once only.
func (b *vmBlock) once(what string) error {
	if b.seen[what] {
		return b.p.fail("%s is given more than once", what)
	}
	if b.seen == nil {
		b.seen = make(map[string]bool)
	}
	b.seen[what] = true
	return nil
}

// vmOptions are the options of a VM by their first word. The extensions are
// looked for here, where OpenBSD allows no other word, and behind a string (see
// atExtension).
var (
	vmOptions map[string]func(*vmBlock) error
	vmWords   []string // they alone
)

func init() { // not a literal: the rules refer to it through the parser
	vmOptions = map[string]func(*vmBlock) error{
		"allow":      (*vmBlock).allow,
		"boot":       (*vmBlock).boot,
		"cdrom":      (*vmBlock).cdrom,
		"disable":    func(b *vmBlock) error { b.vm.Enabled = false; return nil },
		"disk":       (*vmBlock).disk,
		"enable":     func(b *vmBlock) error { b.vm.Enabled = true; return nil },
		"interface":  func(b *vmBlock) error { return b.nic(false) },
		"interfaces": (*vmBlock).interfaces,
		"local":      (*vmBlock).local,
		"memory":     (*vmBlock).memory,
		"owner":      (*vmBlock).owner,
		"sev":        func(b *vmBlock) error { b.vm.SEV = true; return nil },
		"seves":      func(b *vmBlock) error { b.vm.SEV, b.vm.SEVES = true, true; return nil },

		"cmdline": (*vmBlock).cmdline,
		"cpus":    (*vmBlock).cpus,
		"initrd":  (*vmBlock).initrd,
		"limit":   (*vmBlock).limit,
		"os":      (*vmBlock).os,
		"restart": (*vmBlock).restart,
		"uuid":    (*vmBlock).uuid,
		"virtio":  (*vmBlock).virtio,
	}
	vmWords = slices.Sorted(maps.Keys(vmOptions))
}

func (b *vmBlock) option() error {
	t := b.p.peek()
	rule := vmOptions[t.text]
	if t.kind != tokWord || rule == nil {
		return b.p.unexpected("an option of a vm", vmWords...)
	}
	b.p.take()
	return rule(b)
}

// memory is: memory ( NUMBER | STRING )
func (b *vmBlock) memory() error {
	if err := b.once("memory"); err != nil {
		return err
	}
	n, err := b.p.size("memory", MinMemory, MaxMemory)
	if err != nil {
		return err
	}
	b.vm.MemoryBytes = uint64(n) &^ (1<<20 - 1)
	if b.vm.MemoryBytes != uint64(n) {
		b.p.warnf("memory size is rounded down to %s (%d bytes)", scaled.Format(b.vm.MemoryBytes), b.vm.MemoryBytes)
	}
	return nil
}

// cpus is: cpus NUMBER
func (b *vmBlock) cpus() error {
	if err := b.once("cpus"); err != nil {
		return err
	}
	n, err := b.p.number("cpus", 1, MaxCPUs)
	b.vm.CPUs = int(n)
	return err
}

// disk is: disk STRING… [ format STRING… ]
func (b *vmBlock) disk() error {
	if len(b.vm.Disks) >= MaxDisks {
		return b.p.fail("too many disks (limit is %d)", MaxDisks)
	}
	path, err := b.file("disk", fs.ModeDevice)
	if err != nil {
		return err
	}
	d := Disk{Path: path}
	if b.p.accept("format") {
		s, err := b.p.strs("raw or qcow2")
		if err != nil {
			return err
		}
		switch strings.ToLower(s) {
		case "raw":
			d.Format = FormatRaw
		case "qcow2":
			d.Format = FormatQcow2
		default:
			return b.p.fail("disk format %s is neither raw nor qcow2", clip(s))
		}
	}
	b.vm.Disks = append(b.vm.Disks, d)
	return nil
}

// boot is: boot STRING…, or boot device ( cdrom | disk | net )
func (b *vmBlock) boot() (err error) {
	p := b.p
	if p.accept("device") {
		d, ok := ParseBootDevice(p.peek().text)
		if !ok || d == BootAuto || p.peek().kind != tokWord {
			return p.unexpected("cdrom, disk or net")
		}
		p.take()
		b.vm.BootDevice = d
		return nil
	}
	if err := b.once("boot"); err != nil {
		return err
	}
	b.vm.Boot, err = b.file("boot", 0)
	return err
}

// initrd is: initrd STRING…
func (b *vmBlock) initrd() (err error) {
	if err := b.once("initrd"); err != nil {
		return err
	}
	b.vm.Initrd, err = b.file("initrd", 0)
	return err
}

// file takes a path that must lead to a regular file, or one whose type is in
// other, and returns it without symbolic links.
func (b *vmBlock) file(what string, other fs.FileMode) (string, error) {
	p := b.p
	name, err := p.strs("a path after " + what)
	if err != nil {
		return "", err
	}
	real, err := p.fs.Realpath(name)
	if err != nil {
		return "", p.fail("%s %s: %s", what, clip(name), cause(err))
	}
	if len(real) > MaxPath {
		return "", p.fail("%s %s: path is longer than %d bytes", what, clip(real), MaxPath)
	}
	st, err := p.fs.Stat(real)
	if err != nil {
		return "", p.fail("%s %s: %s", what, clip(name), cause(err))
	}
	// ModeDevice alone is a block device.
	if t := st.Mode().Type(); t != 0 && t != other {
		return "", p.fail("%s %s: not a regular file", what, clip(name))
	}
	return real, nil
}

// cdrom is: cdrom STRING…. Whether it is there is a matter of each start.
func (b *vmBlock) cdrom() error {
	if err := b.once("cdrom"); err != nil {
		return err
	}
	s, err := b.p.strs("a path after cdrom")
	if err != nil {
		return err
	}
	if s == "" || len(s) > MaxPath {
		return b.p.fail("cdrom %s: path is empty or longer than %d bytes", clip(s), MaxPath)
	}
	b.vm.CDROM = s
	return nil
}

// cmdline is: cmdline STRING…
func (b *vmBlock) cmdline() (err error) {
	if err := b.once("cmdline"); err != nil {
		return err
	}
	b.vm.Cmdline, err = b.p.strs("the arguments of a kernel")
	return err
}

// os is: os STRING…
func (b *vmBlock) os() (err error) {
	if err := b.once("os"); err != nil {
		return err
	}
	b.vm.OS, err = b.p.strs("the name of an operating system")
	return err
}

// uuid is: uuid STRING
func (b *vmBlock) uuid() error {
	if err := b.once("uuid"); err != nil {
		return err
	}
	s, err := b.p.str("a UUID")
	if err != nil {
		return err
	}
	u, ok := uuid(s)
	if !ok {
		return b.p.fail("uuid %s is not of the form 01234567-89ab-cdef-0123-456789abcdef", clip(s))
	}
	b.vm.UUID = u
	return nil
}

// virtio is: virtio ( modern | transitional )
func (b *vmBlock) virtio() error {
	if err := b.once("virtio"); err != nil {
		return err
	}
	switch {
	case b.p.accept("modern"):
	case b.p.accept("transitional"):
		b.vm.Transitional = true
	default:
		return b.p.unexpected("modern or transitional")
	}
	b.vm.VirtioSet = true
	return nil
}

// owner is: owner OWNER
func (b *vmBlock) owner() (err error) {
	b.vm.Owner, err = b.p.owner()
	b.vm.OwnerSet = true
	return err
}
