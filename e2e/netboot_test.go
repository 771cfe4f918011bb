package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmd/e2e/harness"
	"vmd/e2e/lab"
	"vmd/internal/testenv"
)

// netROM is where Debian has iPXE's ROM.
const netROM = "/usr/lib/ipxe/qemu/pxe-virtio.rom"

// The boot server's address on testBridge.
const bootServer = "10.98.0.1"

// bootScript is for iPXE, which is told its name by DHCP and fetches it by TFTP.
// The kernel comes by HTTP: TFTP waits for each piece of a file.
const bootScript = `#!ipxe
echo script by tftp for ${net0/ip}
kernel http://` + bootServer + `/` + lab.GuestMemtest + ` console=ttyS0,115200
echo kernel by http
boot
`

// serveBoot makes testBridge, with a boot server on it: Debian's dnsmasq for DHCP
// and TFTP.
func serveBoot(t *testing.T) {
	t.Helper()
	dnsmasq := testenv.Tool(t, "dnsmasq")
	if _, err := os.Stat(netROM); err != nil {
		if testenv.Required("T3") {
			t.Fatalf("%s requires T3: no package ipxe-qemu", testenv.RequireVar)
		}
		t.Skip("needs the package ipxe-qemu")
	}
	hostTool(t, "ip", "link", "add", testBridge, "type", "bridge")
	t.Cleanup(func() { hostTool(t, "ip", "link", "del", testBridge) })
	hostTool(t, "ip", "addr", "add", bootServer+"/24", "dev", testBridge)
	hostTool(t, "ip", "link", "set", testBridge, "up")
	dir := harness.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "boot.ipxe"), []byte(bootScript), 0o644); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(dnsmasq, "--no-daemon", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--port=0",
		"--interface="+testBridge, "--bind-interfaces", "--log-dhcp", "--dhcp-leasefile="+filepath.Join(dir, "leases"),
		"--dhcp-range=10.98.0.10,10.98.0.99,255.255.255.0", "--dhcp-boot=boot.ipxe", "--enable-tftp", "--tftp-root="+dir)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("dnsmasq:\n%s", &log)
		}
	})
	l, err := net.Listen("tcp", bootServer+":80")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(os.Getenv(lab.GuestsVar)))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

// VMs without a kernel boot from the network: one that has two interfaces and
// nothing else; one whose devices are those of virtio 0.9, asked to by vmctl; and
// one where nobody has anything for it.
func TestNetBoot(t *testing.T) {
	testenv.KVM(t)
	testenv.NeedRealKVM(t)
	need(t, lab.GuestMemtest)
	serveBoot(t)
	d := harness.StartVMD(t, `
switch "lan" {
	interface `+testBridge+`
}
vm "alone" {
	disable
	memory 64M
	boot device net
	interface { switch "lan" }
	interface tap
}
vm "old" {
	disable
	memory 64M
	disk "`+harness.NewDisk(t, harness.Dir(t), "disk.img", 1)+`"
	virtio transitional
	interface { switch "lan" }
}
vm "local" {
	disable
	memory 64M
	boot device net
	local interface
}
`)
	for _, c := range []struct {
		start []string
		want  []string
		then  func(*testing.T, *harness.Console)
	}{
		{[]string{"alone"}, append([]string{"boot.ipxe... ok", "script by tftp for 10.98.0.", "kernel by http"}, memtest...), nil},
		{[]string{"old", "-B", "net"}, []string{"script by tftp for 10.98.0."}, nil},
		// vmd's own DHCP gives an address, and names no file that nobody has.
		{[]string{"local"}, nil, func(t *testing.T, c *harness.Console) {
			leased(t, d, c, "local")
			c.Expect("Nothing to boot")
			c.Expect("No bootable device.")
		}},
	} {
		name := c.start[0]
		t.Run(name, func(t *testing.T) {
			defer d.Use(d.Use(t))
			d.Vmctl(append([]string{"start"}, c.start...)...)
			defer d.Vmctl("stop", "-fw", name)
			tty := plainConsole(t, name)
			for _, want := range append([]string{"iPXE (PCI 00:08.0) starting execution", "Configuring (net0"}, c.want...) {
				tty.Expect(want)
			}
			if c.then != nil {
				c.then(t, tty)
			}
		})
	}
}
