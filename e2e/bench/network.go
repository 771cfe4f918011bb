package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmd/e2e/lab"
)

// The network between a guest and its host, both ends of one tap with the same
// offloads, with e2e/traffic on either. With vhost the kernel moves the frames,
// and there is not much left to compare.

// Addresses of the guest and of its tap.
const (
	netGuest = "10.98.0.2"
	netHost  = "10.98.0.1/24"
	netWords = "console=ttyS0 quiet panic=-1 name=net ip=" + netGuest + "/24"
)

// netColumns are the figures of traffic measure and their heads. Of trip less
// is better.
var netColumns = []struct{ key, head string }{
	{"from", "guest to host, MB/s"},
	{"to", "host to guest, MB/s"},
	{"frames-from", "small frames from the guest, 1/s"},
	{"frames-to", "to the guest, 1/s"},
	{"trip", "round trip, us"},
}

// netMachine is a guest on a tap.
type netMachine interface {
	start() error
	console() io.ReadWriter
	tap() (string, error)
	end()
	abort() // has whoever reads the console stop; another goroutine calls it
	complaints() string
}

// netPatience bounds what a contender takes, as the lab machine counts time.
const netPatience = 3 * time.Minute

// netContender is a way to give the lab's guest a network.
type netContender struct {
	name  string
	vhost bool
	make  func(initrd string, vhost bool) netMachine
}

func netContenders() []netContender {
	const pci = "virtio-net-pci,romfile=" // no guest of ours boots from the network
	return []netContender{
		{"QEMU q35", false, qemuNet("q35", pci)},
		{"QEMU microvm with PCI", false, qemuNet(microvm+",pcie=on", pci)},
		{"vmd", false, vmdNet("up")},
		{"vmd, locked address", false, vmdNet("locked lladdr")},
		{"QEMU q35, vhost", true, qemuNet("q35", pci)},
		{"vmd, vhost", true, vmdNet("up")},
	}
}

// measureNetwork prints a table with a line for each contender.
func measureNetwork(rounds int, only string) error {
	dir, err := os.MkdirTemp("", "net")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	initrd, err := netInitrd(dir)
	if err != nil {
		return err
	}
	fmt.Print("| network |")
	for _, c := range netColumns {
		fmt.Printf(" %s |", c.head)
	}
	fmt.Printf("\n| --- |%s\n", strings.Repeat(" ---: |", len(netColumns)))
	var errs []error
	for _, c := range netContenders() {
		if only != "" && !strings.Contains(c.name, only) {
			continue
		}
		all, err := c.measure(initrd, rounds)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
			continue
		}
		fmt.Printf("| %s |", c.name)
		for _, col := range netColumns {
			fmt.Printf(" %s |", middle(all[col.key]))
		}
		fmt.Println()
	}
	if only == "" || only == "hostile" {
		errs = append(errs, measureHostile(initrd, rounds))
	}
	return errors.Join(errs...)
}

// middle shows the middle one of some figures, and how far they are apart.
func middle(all []float64) string {
	if len(all) == 0 {
		return ""
	}
	slices.SortFunc(all, cmp.Compare)
	f := all[len(all)/2]
	digits := 0
	if f < 1000 {
		digits = 1
	}
	return fmt.Sprintf("%.*f (%.1f %%)", digits, f, 100*(all[len(all)-1]-all[0])/f)
}

// netInitrd is the guests' initramfs with the program that serves.
func netInitrd(dir string) (string, error) {
	b, err := os.ReadFile(guest(lab.GuestInitrd))
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(traffic)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initrd")
	return path, os.WriteFile(path, lab.AppendFile(b, "bin/traffic", program), 0o644)
}

const traffic = "/usr/sbin/traffic"

// measure boots one guest and measures rounds times; one round before does not
// count.
func (c *netContender) measure(initrd string, rounds int) (map[string][]float64, error) {
	restore, err := hideVhost(!c.vhost)
	if err != nil {
		return nil, err
	}
	defer restore()
	m := c.make(initrd, c.vhost)
	limit := time.AfterFunc(netPatience, m.abort)
	defer limit.Stop()
	err = m.start()
	if err == nil {
		err = serveTraffic(m)
	}
	defer m.end()
	if err != nil {
		m.end() // all has been said then
		return nil, fmt.Errorf("%w\n%s", err, m.complaints())
	}
	all := make(map[string][]float64)
	for round := range rounds + 1 {
		progress("%s, %d", c.name, round)
		out, err := exec.Command(traffic, "measure", netGuest).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("traffic measure: %w: %s", err, out)
		}
		if round == 0 {
			continue
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			v, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return nil, err
			}
			all[f[0]] = append(all[f[0]], v)
		}
	}
	return all, nil
}

// serveTraffic waits for a guest, has it serve, and gives its tap an address.
func serveTraffic(m netMachine) error {
	console := m.console()
	if err := readUntil(console.Read, "guest ready"); err != nil {
		return err
	}
	if _, err := io.WriteString(console, "run traffic serve\n"); err != nil {
		return err
	}
	if err := readUntil(console.Read, "traffic ready"); err != nil {
		return err
	}
	tap, err := m.tap()
	if err != nil {
		return err
	}
	if out, err := exec.Command("ip", "addr", "add", netHost, "dev", tap).CombinedOutput(); err != nil {
		return fmt.Errorf("ip addr add: %w: %s", err, out)
	}
	return nil
}

// hideVhost makes /dev/vhost-net go until restore: vmd takes it where it is.
func hideVhost(hide bool) (restore func(), err error) {
	const node, aside = "/dev/vhost-net", "/dev/vhost-net.aside"
	if !hide {
		return func() {}, nil
	}
	if err := os.Rename(node, aside); err != nil {
		return nil, err
	}
	return func() { os.Rename(aside, node) }, nil
}

// qemuNetGuest is a guest of QEMU's, with its serial port on pipes.
type qemuNetGuest struct {
	cmd  *exec.Cmd
	said bytes.Buffer // its complaints
	io.Reader
	io.Writer
}

// qemuTap is the tap that QEMU makes for itself.
const qemuTap = "qtap0"

func qemuNet(machine, device string) func(string, bool) netMachine {
	return func(initrd string, vhost bool) netMachine {
		netdev := "tap,id=n,ifname=" + qemuTap + ",script=no,downscript=no,vhost=off"
		if vhost {
			netdev = strings.Replace(netdev, "vhost=off", "vhost=on", 1)
		}
		return &qemuNetGuest{cmd: qemuCommand(machine, guest(lab.GuestVMLinux), initrd, netWords,
			"-netdev", netdev, "-device", device+",netdev=n")}
	}
}

func (q *qemuNetGuest) start() (err error) {
	if q.Reader, err = q.cmd.StdoutPipe(); err != nil {
		return err
	}
	if q.Writer, err = q.cmd.StdinPipe(); err != nil {
		return err
	}
	q.cmd.Stderr = &q.said
	return startQEMU(q.cmd)
}

func (q *qemuNetGuest) console() io.ReadWriter { return q }

func (q *qemuNetGuest) tap() (string, error) {
	if out, err := exec.Command("ip", "link", "set", qemuTap, "up").CombinedOutput(); err != nil {
		return "", fmt.Errorf("ip link set up: %w: %s", err, out)
	}
	return qemuTap, nil
}

func (q *qemuNetGuest) abort() { q.cmd.Process.Kill() }

func (q *qemuNetGuest) complaints() string { return q.said.String() }

func (q *qemuNetGuest) end() {
	if q.cmd.Process != nil {
		q.cmd.Process.Kill()
		q.cmd.Wait()
	}
}

// vmdNetGuest is a guest of a vmd of its own.
type vmdNetGuest struct {
	vmdGuest
	initrd, option string
}

func vmdNet(option string) func(string, bool) netMachine {
	return func(initrd string, _ bool) netMachine { return &vmdNetGuest{initrd: initrd, option: option} }
}

const vmdNetConf = `vm "bench" {
	disable
	memory %dM
	boot %q
	initrd %q
	cmdline %q
	interface tap { %s }
}
`

func (g *vmdNetGuest) start() error {
	err := g.daemonWith(fmt.Sprintf(vmdNetConf, guestMiB, guest(lab.GuestVMLinux), g.initrd, netWords, g.option))
	if err == nil {
		err = g.begin()
	}
	return err
}

// abort ends the guest's process and so its terminal.
func (g *vmdNetGuest) abort() { vmctl("stop", "-f", "bench") }

func (g *vmdNetGuest) complaints() string { return g.log.String() }

// console is the guest's tty as a terminal's other end would be.
func (g *vmdNetGuest) console() io.ReadWriter { return g.tty }

func (g *vmdNetGuest) tap() (string, error) {
	out, err := vmctl("status", "--json", "bench")
	if err != nil {
		return "", err
	}
	var s struct {
		VMs []struct {
			Interfaces []struct {
				Tap string `json:"tap"`
			} `json:"interfaces"`
		} `json:"vms"`
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return "", err
	}
	if len(s.VMs) != 1 || len(s.VMs[0].Interfaces) != 1 {
		return "", fmt.Errorf("no tap in %s", out)
	}
	return s.VMs[0].Interfaces[0].Tap, nil
}
