package parent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// The first ROM that is there counts, and links lead to it.
func TestOpenNetROM(t *testing.T) {
	rom := tempFile(t, "rom")
	link := rom + ".link"
	if err := os.Symlink(rom, link); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(filepath.Dir(rom), "none")
	for _, paths := range [][]string{{rom}, {none, rom, "/etc/passwd"}, {none, link}} {
		f, err := openNetROM(paths)
		if err != nil {
			t.Errorf("%q: %v", paths, err)
			continue
		}
		if b := make([]byte, 8); f.Name() == "" || !slices.Contains(paths, f.Name()) {
			t.Errorf("%q: opened %q", paths, f.Name())
		} else if n, _ := f.ReadAt(b, 0); string(b[:n]) != "rom" {
			t.Errorf("%q: read %q", paths, b[:n])
		}
		f.Close()
	}
	_, err := openNetROM([]string{none})
	wantError(t, err, vmop.ErrNoBootROM, "boot device net needs a network boot ROM: there is none at "+none+": install the package ipxe-qemu")
	// One that is there and no good is not passed over.
	_, err = openNetROM([]string{filepath.Dir(rom), rom})
	wantError(t, err, vmop.ErrNoBootROM, "not a regular file")
}

// Who is given the ROM: a VM that may have use for it.
func TestBootROMFor(t *testing.T) {
	rom, bios := tempFile(t, "rom"), tempFile(t, "bios")
	net := func(v *config.VM) { v.BootDevice = config.BootNet }
	plain := func(v *config.VM) { v.Boot, v.Cmdline = "", "" }
	lonely := func(v *config.VM) { v.NICs = nil }
	for _, c := range []struct {
		name  string
		edits []func(*config.VM)
		rom   string
		files []string
		want  vmop.Code
	}{
		{"firmware", []func(*config.VM){plain}, rom, []string{"firmware"}, vmop.OK},
		{"firmware, net", []func(*config.VM){plain, net}, rom, []string{"firmware", "netrom"}, vmop.OK},
		{"firmware, net, no ROM", []func(*config.VM){plain, net}, "/no/rom", []string{"firmware"}, vmop.ErrNoBootROM},
		{"firmware, net, no interface", []func(*config.VM){plain, net, lonely}, "/no/rom", []string{"firmware"}, vmop.OK},
		{"firmware, disk", []func(*config.VM){plain, func(v *config.VM) { v.BootDevice = config.BootDisk }}, rom, []string{"firmware"}, vmop.OK},
		{"boot file", nil, rom, []string{"kernel"}, vmop.OK},
		{"boot file, net", []func(*config.VM){net}, rom, []string{"kernel", "netrom"}, vmop.OK},
		{"boot file, net, no ROM", []func(*config.VM){net}, "/no/rom", []string{"kernel"}, vmop.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{def: vmDef(t, "x", c.edits...), given: map[string]*os.File{}}
			o := opener{p: host{firmware: []string{bios}, netROMs: []string{c.rom}}, run: r}
			err := o.openBoot()
			if (err == nil) != (c.want == vmop.OK) || err != nil && codeOf(err) != c.want {
				t.Errorf("error %v, want %v", err, c.want)
			}
			var names []string
			for _, n := range o.files {
				names = append(names, n.name)
				n.file.Close()
			}
			if !slices.Equal(names, c.files) {
				t.Errorf("descriptors %q, want %q", names, c.files)
			}
		})
	}
}

// The client is told which ROM is no good: the VM's process does not know.
func TestROMThatIsNone(t *testing.T) {
	rom, bios := tempFile(t, "rom"), tempFile(t, "bios")
	v := vmDef(t, "x", func(v *config.VM) { v.Boot, v.Cmdline, v.BootDevice = "", "", config.BootNet })
	d := newDaemon(t, []config.VM{v}, func(p *parent) { p.host.firmware, p.host.netROMs = []string{bios}, []string{rom} })
	id := d.ask(0, vmop.Start, vmop.StartRequest{VM: vmNamed("x")})
	d.taps(1)
	g := d.launched()
	if g.req.BootDevice != "net" || !slices.Contains(g.req.Files, "netrom") {
		t.Errorf("boot device %q, descriptors %q", g.req.BootDevice, g.req.Files)
	}
	g.close()
	d.event(vmop.Event{ID: g.req.ID, Kind: vmop.EventFailed, Code: vmop.ErrNoBootROM, Detail: "it is none"})
	if res, _ := d.result(id, vmop.ErrNoBootROM); res.Detail != "network boot ROM \""+rom+"\": it is none" {
		t.Errorf("detail %q", res.Detail)
	}
	d.wantNothingLeft(v.Disks[0].Path)
}
