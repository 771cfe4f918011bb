package parent

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"vmd/hv/sev"
	"vmd/internal/cgroup"
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// opener opens what a run needs, beside the loop: a file may lie on a server
// that does not answer. It looks at nothing that the loop changes.
type opener struct {
	p       host
	run     *run
	ids     ids
	socket  string
	cgroups *cgroup.Tree

	files   []named
	disks   []vmop.DiskArg
	tty     *tty
	group   *cgroup.Group
	images  map[string]image // all, by path
	known   map[string]image // those that were opened by their paths
	devices []uint64
	netROM  string // path of that ROM, if there is one
	raw     rawDisks
	made    []string // images
	warn    []string
}

func (o *opener) add(name string, f *os.File) { o.files = append(o.files, named{name, f}) }

// open opens everything, or fails at the first that is not to be had; what it
// has opened by then is in o.
func (o *opener) open() error {
	o.tty = o.run.tty
	o.images, o.known = map[string]image{}, map[string]image{}
	if err := checkMemory(o.run.def.MemoryBytes, o.p.memory); err != nil {
		return err
	}
	for _, step := range []func() error{o.openKVM, o.openSEV, o.openBoot, o.openCDROM, o.openDisks, o.openTTY, o.openSocket} {
		if err := step(); err != nil {
			return err
		}
	}
	o.openGroup()
	return nil
}

func (o *opener) openKVM() error {
	f, err := o.p.openKVM()
	if err != nil {
		return &coded{vmop.ErrHypervisor, fmt.Errorf("KVM is not to be had: %w", noKVM(err))}
	}
	o.add("kvm", f)
	return nil
}

// openSEV opens the secure processor for a guest whose memory is to be encrypted.
// Without it there is no such guest: it must not run in plain.
func (o *opener) openSEV() error {
	k := encryptionOf(&o.run.def)
	if k == sev.None {
		return nil
	}
	if high := o.run.def.Limits.MemoryHigh; high != 0 && high < o.run.def.MemoryBytes {
		return code(vmop.ErrSEV, "%v holds all of a VM's %d MiB in place: limit memory-high of %d MiB would only slow it down for ever",
			k, o.run.def.MemoryBytes>>20, high>>20)
	}
	f, err := o.p.openSEV(k)
	if err != nil {
		return &coded{vmop.ErrSEV, err}
	}
	o.add("sev", f)
	return nil
}

// encryptionOf is what def wants of SEV.
func encryptionOf(def *config.VM) sev.Kind {
	switch {
	case def.SEVES:
		return sev.ES
	case def.SEV:
		return sev.SEV
	}
	return sev.None
}

// openBoot opens the kernel and its initrd, or the firmware, and the ROM to boot
// from the network with. A boot file may be firmware too: into it only the VM
// process looks, which says so if there is no ROM for it.
func (o *opener) openBoot() error {
	d := &o.run.def
	if o.run.guest != nil {
		return nil // it has booted
	}
	firmware := d.Boot == "" && o.run.given["kernel"] == nil
	open := o.openKernel
	if firmware {
		open = o.openFirmware
	}
	if err := open(); err != nil || d.BootDevice != config.BootNet || len(d.NICs) == 0 {
		return err
	}
	f, err := openNetROM(o.p.netROMs)
	switch {
	case err == nil:
		o.netROM = f.Name()
		o.add("netrom", f)
	case firmware:
		return err
	}
	return nil
}

func (o *opener) openFirmware() error {
	f, err := openFirmware(o.p.firmware)
	if err != nil {
		return err
	}
	o.add("firmware", f)
	return nil
}

func (o *opener) openKernel() error {
	d := &o.run.def
	if err := o.openOne("kernel", d.Boot, kernelFile); err != nil {
		return err
	}
	if d.Initrd == "" && o.run.given["initrd"] == nil {
		return nil
	}
	return o.openOne("initrd", d.Initrd, initrdFile)
}

func (o *opener) openCDROM() error {
	if o.run.def.CDROM == "" && o.run.given["cdrom"] == nil {
		return nil
	}
	if err := o.openOne("cdrom", o.run.def.CDROM, cdromFile); err != nil {
		return err
	}
	_, err := o.inspect("cdrom", o.files[len(o.files)-1].file, o.run.def.CDROM, config.FormatRaw)
	return err
}

func (o *opener) openDisks() error {
	for i, d := range o.run.def.Disks {
		name := "disk" + strconv.Itoa(i)
		if err := o.openDisk(i, name, d.Path); err != nil {
			return err
		}
		top := o.files[len(o.files)-1].file
		im, err := o.inspect(name, top, d.Path, d.Format)
		if err != nil {
			return err
		}
		arg := vmop.DiskArg{Format: im.parameter(), Files: 1, Serial: serial(o.run.def.Name, o.run.id, i)}
		if o.run.guest != nil {
			arg.Serial = o.run.guest.Disks[i].Serial
		}
		if arg.Format == "qcow2" {
			if err := o.addBases(&arg, top, d.Path, name); err != nil {
				return err
			}
		}
		o.disks = append(o.disks, arg)
	}
	return nil
}

// addBases adds the images below the one in top. A client opens the image
// itself, but what that names is opened here, so it must be root.
func (o *opener) addBases(arg *vmop.DiskArg, top *os.File, path, name string) error {
	if o.run.given[name] != nil && !o.run.root {
		h, err := imageHeader(top)
		if err != nil {
			return &coded{vmop.ErrDisk, fmt.Errorf("disk %q: %w", path, err)}
		}
		if h.BackingName != "" {
			return code(vmop.ErrDisk, "disk %q: an image with a base must be named in vm.conf", path)
		}
		return nil // and whatever the client writes into it from now on
	}
	bases, err := openBases(top, path)
	for i, f := range bases {
		o.add(fmt.Sprintf("%s.%d", name, i+1), f)
	}
	arg.Files += len(bases)
	return err
}

// openOne adds the file called name: the one a client gave, or the one at path.
func (o *opener) openOne(name, path string, k kind) error {
	if f := o.run.given[name]; f != nil {
		if err := k.take(f, path, o.run.root); err != nil {
			return err
		}
		c, err := dup(f)
		if err != nil {
			return &coded{k.code, err}
		}
		o.add(name, c)
		return nil
	}
	if slices.Contains(o.run.names, name) {
		// Its path is a stranger's word, and we are root.
		return code(k.code, "%s %q was opened by a client, and is lost with the vmd that it gave it to", k.what, path)
	}
	f, err := k.open(path)
	if err != nil {
		return err
	}
	o.add(name, f)
	return nil
}

// inspect finds out what the image is that is called name.
func (o *opener) inspect(name string, f *os.File, path string, want config.Format) (image, error) {
	im, err := inspect(f, want)
	if err == nil && want == config.FormatAuto && im.format == "qcow2" && o.raw.has(path, im.id) {
		o.warn = append(o.warn, fmt.Sprintf("disk %q: it was raw and now looks like qcow2; used as raw unless vm.conf says its format", path))
		im, err = inspect(f, config.FormatRaw)
	}
	if err != nil {
		return im, &coded{vmop.ErrDisk, fmt.Errorf("disk %q: %w", path, err)}
	}
	o.images[path] = im
	if o.run.given[name] == nil { // else the path is a client's word
		o.known[path] = im
	}
	o.devices = append(o.devices, im.dev)
	return im, nil
}

// serial is a disk's id in the guest: the same at each start.
func serial(name string, id uint32, disk int) string {
	if s := fmt.Sprintf("%s-%d", name, disk); len(s) <= vmop.MaxSerial {
		return s
	}
	return fmt.Sprintf("vm%d-%d", id, disk)
}

// openTTY makes the pty, or keeps the one of the run before.
func (o *opener) openTTY() error {
	if o.tty == nil {
		t, err := o.p.openTTY(&o.run.def.Owner)
		if err != nil {
			return &coded{vmop.ErrInternal, err}
		}
		o.tty = t
	}
	for _, n := range []named{{"tty", o.tty.master}, {"ttyslave", o.tty.slave}} {
		f, err := dup(n.file)
		if err != nil {
			return &coded{vmop.ErrInternal, err}
		}
		o.add(n.name, f)
	}
	return nil
}

func (o *opener) openSocket() error {
	f, err := listenFor(o.socket)
	if err != nil {
		return &coded{vmop.ErrInternal, fmt.Errorf("make the VM's socket: %w", err)}
	}
	o.add("listen", f)
	return nil
}

// openGroup makes the VM's control group. A host without them has none, and
// the VM no limits: parent has said so when it started. A limit that cannot be
// set keeps no VM from running.
func (o *opener) openGroup() {
	if o.cgroups == nil {
		return
	}
	l := &o.run.def.Limits
	limits := cgroup.Limits{CPUPercent: l.CPUPercent, MemoryHigh: l.MemoryHigh, IORead: l.IORead, IOWrite: l.IOWrite}
	if l.IORead+l.IOWrite > 0 {
		limits.Devices = o.wholeDevices()
	}
	g, err := o.cgroups.Group(strconv.FormatUint(uint64(o.run.id), 10), int(o.ids.uid), limits)
	if err != nil {
		o.warn = append(o.warn, err.Error())
	}
	if g == nil {
		return
	}
	o.group = g
	if d, err := g.Dir(); err == nil {
		o.add("cgroup", d)
	}
}

// wholeDevices are the devices under the VM's disks, for io.max: that knows
// whole devices only.
func (o *opener) wholeDevices() (devs []uint64) {
	for _, d := range o.devices {
		whole, err := cgroup.WholeDevice(d)
		switch {
		case err != nil:
			o.warn = append(o.warn, fmt.Sprintf("a disk without the limits on its speed: %v", err))
		case !slices.Contains(devs, whole):
			devs = append(devs, whole)
		}
	}
	return devs
}
