package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// packageOf is which package of Debian a file for guests is made from.
var packageOf = map[string]string{
	lab.GuestXen:         "xen-hypervisor-4.17-amd64",
	lab.GuestMach:        "gnumach-image-1-486",
	lab.GuestMemtest:     "memtest86+",
	lab.GuestMemtestCD:   "memtest86+",
	lab.GuestIPXECD:      "ipxe",
	lab.GuestInstaller:   "debian-installer-12-netboot-amd64",
	lab.GuestInstallerRD: "debian-installer-12-netboot-amd64",
	lab.GuestCD:          "xorriso",
	lab.GuestDisk:        "grub-pc-bin",
}

// need skips a test without these files for guests.
func need(t *testing.T, files ...string) {
	t.Helper()
	for _, name := range files {
		if _, err := os.Stat(filepath.Join(os.Getenv(lab.GuestsVar), name)); err == nil {
			continue
		}
		if testenv.Required("T3") {
			t.Fatalf("%s requires T3: no package %s", testenv.RequireVar, packageOf[name])
		}
		t.Skipf("needs the package %s", packageOf[name])
	}
}

// foreign is a VM with somebody else's software, and what is to be seen on its
// console, in this order.
type foreign struct {
	name string
	conf string   // with ${NAME} for files for guests
	need []string // further files, on the CD or the disk
	key  string   // to press in GRUB's menu
	want []string
	then func(t *testing.T, d *harness.Daemon, c *harness.Console)
}

// lastOfMenu is what GRUB draws after the menu's frame and help.
const lastOfMenu = "for a command-line."

var foreigners = []foreign{
	{
		name: "GRUB boots Linux from a CD",
		conf: `memory 128M; cdrom "${grub.iso}"`, key: "l",
		want: []string{"guest ready cd"},
		then: func(_ *testing.T, _ *harness.Daemon, c *harness.Console) {
			c.Command("run grep -q name=cd /proc/cmdline")
		},
	},
	{
		// The last two lines are the domain's own.
		name: "Xen boots its domain 0",
		conf: `memory 384M; cdrom "${grub.iso}"`, key: "x", need: []string{lab.GuestXen, lab.GuestInstaller},
		want: []string{"Xen version 4", "ENABLING IO-APIC IRQs", "Dom0 alloc", "about to get started...", "guest ready dom0"},
		then: func(_ *testing.T, _ *harness.Daemon, c *harness.Console) {
			c.Command("run grep -q xen /sys/hypervisor/type")
		},
	},
	{
		name: "GNU Mach boots from a disk",
		conf: `memory 64M; disk "${grub.img}" format raw`, key: "g", need: []string{lab.GuestMach},
		// It has nothing to start: Hurd is no part of it.
		want: []string{"GNU Mach 1.8", "RTC time is 20", "No bootstrap code loaded with the kernel"},
	},
	{
		name: "memtest boots from a disk",
		conf: `memory 64M; disk "${grub.img}" format raw`, key: "m", need: []string{lab.GuestMemtest},
		want: memtest,
	},
	{
		name: "memtest as a kernel",
		conf: `memory 64M; boot "${memtest.bin}"; cmdline "console=ttyS0,115200"`,
		want: memtest,
	},
	{
		name: "iPXE has an address by DHCP",
		conf: `memory 64M; cdrom "${ipxe.iso}"; local interface`,
		want: []string{"ISOLINUX", "iPXE initialising devices...ok", "using virtio-net on"},
		then: func(t *testing.T, d *harness.Daemon, c *harness.Console) { leased(t, d, c, "it") },
	},
	{
		name: "the installer shows its first dialog",
		conf: `memory 512M; boot "${installer}"; initrd "${installer.gz}"; cmdline "console=ttyS0 quiet"`,
		want: []string{"Starting system log daemon", "Entering low memory mode", "<Continue>"},
	},
}

// memtest is what it shows once it tests.
var memtest = []string{"Memtest86+ v6", "#0  [Address test, walking ones, no cache]", "Errors: 0"}

// leased wants iPXE's address to be the one that vmd shows.
func leased(t *testing.T, d *harness.Daemon, c *harness.Console, name string) {
	t.Helper()
	line := c.Expect("/255.255.255.254 gw ")
	vm := d.Row(name)
	if len(vm.Interfaces) != 1 || !strings.HasSuffix(line, "net0: "+vm.Interfaces[0].Address) {
		t.Errorf("iPXE has %q, want the address of %+v", line, vm.Interfaces)
	}
}

// plain leaves out control sequences (ECMA-48, 5.4). SeaBIOS puts the cursor
// into its place whenever it has a moment, in the middle of words.
type plain struct {
	r     io.Reader
	state int // 0 in text, 1 behind ESC, 2 in a sequence
}

func (p *plain) Read(b []byte) (int, error) {
	for {
		n, err := p.r.Read(b)
		text := b[:0]
		for _, c := range b[:n] {
			switch {
			case p.state == 0 && c == 0x1b:
				p.state = 1
			case p.state == 0:
				text = append(text, c)
			case p.state == 1 && c == '[':
				p.state = 2
			case p.state == 1 || c >= 0x40 && c <= 0x7e:
				p.state = 0
			}
		}
		if len(text) > 0 || err != nil {
			return len(text), err
		}
	}
}

func TestPlainLeavesText(t *testing.T) {
	var parts []io.Reader
	for _, s := range []string{"iPX\x1b", "[06;03", "H\x1b[06;04HE \x1bcis\x1b[0;1m he", "re"} {
		parts = append(parts, strings.NewReader(s))
	}
	if b, err := io.ReadAll(&plain{r: io.MultiReader(parts...)}); err != nil || string(b) != "iPXE is here" {
		t.Errorf("got %q, %v", b, err)
	}
}

// plainConsole is vmctl console without control sequences.
func plainConsole(t *testing.T, name string) *harness.Console {
	t.Helper()
	cmd := exec.Command(harness.Program(t, "vmctl"), "console", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return harness.NewConsole(t, name, struct {
		io.Reader
		io.Writer
	}{&plain{r: out}, in})
}

// Boot loaders, other kernels and tools, all of them as their packages have them.
func TestForeignSoftware(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	d := harness.NewVMD(t, "")
	d.Start()
	for _, f := range foreigners {
		t.Run(f.name, func(t *testing.T) {
			need(t, f.need...)
			defer d.Use(d.Use(t))
			d.WriteConfig(f.define(t))
			d.Vmctl("reload")
			d.Vmctl("start", "it")
			defer func() {
				d.Vmctl("stop", "-f", "it")
				d.Await("it", "stopped")
			}()
			c := plainConsole(t, "it")
			if f.key != "" {
				c.Expect(lastOfMenu)
				c.Say(f.key)
			}
			for _, want := range f.want {
				c.Expect(want)
			}
			if f.then != nil {
				f.then(t, d, c)
			}
		})
	}
}

// define is the VM's configuration.
func (f *foreign) define(t *testing.T) string {
	t.Helper()
	body := os.Expand(f.conf, func(name string) string {
		need(t, name)
		path := harness.Guest(t, name)
		if name == lab.GuestDisk {
			path = copyOf(t, path) // it is opened for writing
		}
		return path
	})
	return "vm \"it\" {\n\tdisable\n\t" + strings.ReplaceAll(body, "; ", "\n\t") + "\n}\n"
}

func copyOf(t *testing.T, path string) string {
	t.Helper()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(harness.Dir(t), filepath.Base(path)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return to.Name()
}
