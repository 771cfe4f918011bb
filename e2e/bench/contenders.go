package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
)

// initSays is the first line of the guests' init.
const initSays = "guest init"

// microvm has its clock: without one Linux waits for it for a second, in 40000
// exits.
const microvm = "microvm,rtc=on"

// contenders are measured in this order.
func contenders() []contender {
	return []contender{
		{"QEMU q35, bzImage", qemu("q35", lab.GuestBzImage)},
		{"QEMU microvm, bzImage", qemu(microvm, lab.GuestBzImage)},
		{"QEMU microvm, vmlinux (PVH)", qemu(microvm, lab.GuestVMLinux)},
		{"QEMU microvm with PCI, rng, balloon, vmlinux", qemu(microvm+",pcie=on", lab.GuestVMLinux,
			"-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,free-page-reporting=on")},
		{"vmd, bzImage", vmd(lab.GuestBzImage)},
		{"vmd, vmlinux (PVH)", vmd(lab.GuestVMLinux)},
	}
}

// qemuGuest is a guest of QEMU with its serial port on a pipe.
type qemuGuest struct {
	cmd *exec.Cmd
	out io.ReadCloser
}

func qemu(machine, kernel string, more ...string) func() (running, error) {
	return func() (running, error) {
		cmd := qemuCommand(machine, guest(kernel), guest(lab.GuestInitrd), cmdline, more...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		return &qemuGuest{cmd, out}, nil
	}
}

func (q *qemuGuest) begin() error { return startQEMU(q.cmd) }

func (q *qemuGuest) awaitInit() error  { return readUntil(q.out.Read, initSays) }
func (q *qemuGuest) pid() (int, error) { return q.cmd.Process.Pid, nil }

func (q *qemuGuest) end() {
	if q.cmd.Process == nil {
		return
	}
	q.cmd.Process.Kill()
	q.cmd.Wait()
}

// vmdGuest is a guest of a vmd of its own. The clock runs from vmctl start:
// jail, descriptors and all; the daemon was there before.
type vmdGuest struct {
	dir    string
	daemon *exec.Cmd
	log    bytes.Buffer
	tty    *os.File
}

func vmd(kernel string) func() (running, error) {
	return func() (running, error) {
		g := new(vmdGuest)
		if err := g.boot(kernel); err != nil {
			g.end()
			return nil, fmt.Errorf("%w\n%s", err, g.log.Bytes())
		}
		return g, nil
	}
}

const vmdConf = `vm "bench" {
	disable
	memory %dM
	boot %q
	initrd %q
	cmdline %q
}
`

func (g *vmdGuest) boot(kernel string) error {
	return g.daemonWith(fmt.Sprintf(vmdConf, guestMiB, guest(kernel), guest(lab.GuestInitrd), cmdline))
}

// daemonWith starts a vmd with text as its vm.conf and waits until it answers.
func (g *vmdGuest) daemonWith(text string) error {
	var err error
	if g.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	conf := filepath.Join(g.dir, "vm.conf")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	g.daemon = exec.Command("vmd", "-d", "-f", conf)
	g.daemon.Stdout, g.daemon.Stderr = &g.log, &g.log
	if err := g.daemon.Start(); err != nil {
		return err
	}
	for range 500 {
		if _, err = vmctl("status"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func vmctl(args ...string) (string, error) {
	out, err := exec.Command("vmctl", args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("vmctl %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// begin starts the guest and opens its console.
func (g *vmdGuest) begin() error { return g.beginVM("bench") }

func (g *vmdGuest) beginVM(name string) error {
	said, err := exec.Command("vmctl", "start", name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("vmctl start: %w: %s", err, said)
	}
	i := bytes.Index(said, []byte("/dev/"))
	if i < 0 {
		return fmt.Errorf("vmctl start names no tty: %s", said)
	}
	tty := strings.TrimSpace(string(said[i:]))
	g.tty, err = os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	return err
}

func (g *vmdGuest) awaitInit() error {
	if err := readUntil(g.tty.Read, initSays); err != nil {
		return fmt.Errorf("%w\n%s", err, g.log.Bytes())
	}
	return nil
}

// pid is the second word of the guest's row of the status table.
func (g *vmdGuest) pid() (int, error) {
	table, err := vmctl("status", "bench")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 2 && f[len(f)-1] == "bench" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("no bench in %q", table)
}

func (g *vmdGuest) end() {
	vmctl("stop", "-f", "-w", "-a")
	if g.tty != nil {
		g.tty.Close()
	}
	if g.daemon != nil && g.daemon.Process != nil {
		g.daemon.Process.Signal(unix.SIGTERM)
		g.daemon.Wait()
	}
	os.RemoveAll(g.dir)
}
