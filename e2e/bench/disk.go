package main

import (
	"cmp"
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

	"vmd/e2e/diskload"
	"vmd/e2e/lab"
)

// A guest's disks, on files in memory: what is measured is the road from the
// guest to the host's cache and back, past the cache of the guest. Each round
// has a disk of its own, new and empty.

// diskMiB is the length of each disk.
const diskMiB = 64

// maxDisks is how many disks a guest of vmd may have.
const maxDisks = 4

const diskWords = "console=ttyS0 quiet panic=-1 name=disk"

// diskContender is a way to give the lab's guest disks.
type diskContender struct {
	name string
	make func(initrd string, disks []string, format string) diskMachine
}

// diskMachine is a guest with disks.
type diskMachine interface {
	start() error
	console() io.ReadWriter
	end()
}

func diskContenders() []diskContender {
	return []diskContender{
		{"QEMU q35", qemuDisk("q35", "virtio-blk-pci", "threads")},
		{"QEMU q35, io_uring", qemuDisk("q35", "virtio-blk-pci", "io_uring")},
		{"QEMU microvm with PCI", qemuDisk(microvm+",pcie=on", "virtio-blk-pci", "threads")},
		{"vmd", vmdDisk},
	}
}

// diskTimes are the times of one contender: by job, one of each round.
type diskTimes [][]time.Duration

// diskPatience is far more than a guest needs, by the machine's clock.
const diskPatience = time.Minute

// measureDisk prints a table for each format, with a line for each job.
func measureDisk(rounds int, only string) error {
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	initrd, err := diskInitrd(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, format := range []string{"raw", "qcow2"} {
		var names []string
		var all []diskTimes
		for _, c := range diskContenders() {
			if only != "" && !strings.Contains(c.name, only) {
				continue
			}
			times, err := c.measure(dir, initrd, format, min(rounds, maxDisks-1))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, %s: %w", c.name, format, err))
				fmt.Printf("%s, %s: no figures\n", c.name, format)
				continue
			}
			names, all = append(names, c.name), append(all, times)
		}
		printDiskTable(format, names, all)
	}
	return errors.Join(errs...)
}

// printDiskTable prints the middle time of each job, as a rate for large
// operations, and how much faster the last contender is than the fastest of
// the others.
func printDiskTable(format string, names []string, all []diskTimes) {
	fmt.Printf("\n| disk, %s | %s | speed |\n| --- |%s ---: |\n", format,
		strings.Join(names, " | "), strings.Repeat(" ---: |", len(names)))
	for k, j := range diskload.Jobs {
		fmt.Printf("| %s |", j.Name)
		var best, own time.Duration
		for i, times := range all {
			own = middleTime(times[k])
			if i < len(all)-1 && (best == 0 || own < best) {
				best = own
			}
			fmt.Printf(" %s |", showJob(j, own))
		}
		fmt.Printf(" %.2f |\n", float64(best)/float64(max(own, 1)))
	}
}

func middleTime(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.SortFunc(times, cmp.Compare)
	return times[len(times)/2]
}

func showJob(j diskload.Job, d time.Duration) string {
	if j.Bytes > diskload.Block {
		return fmt.Sprintf("%.0f MB/s", float64(j.Ops*j.Bytes)/1e6/d.Seconds())
	}
	return fmt.Sprintf("%.1f us", float64(d)/float64(time.Microsecond)/float64(j.Ops))
}

// diskInitrd is the guests' initramfs with diskload.
func diskInitrd(dir string) (string, error) {
	b, err := os.ReadFile(guest(lab.GuestInitrd))
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(diskload.Program)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initrd")
	return path, os.WriteFile(path, lab.AppendFile(b, "bin/diskload", program), 0o644)
}

// measure boots one guest and has it do all jobs on each of its disks. The
// first disk does not count.
func (c *diskContender) measure(dir, initrd, format string, rounds int) (diskTimes, error) {
	var disks []string
	for k := range rounds + 1 {
		name := filepath.Join(dir, fmt.Sprintf("disk%d.%s", k, format))
		if out, err := exec.Command("qemu-img", "create", "-f", format, name, strconv.Itoa(diskMiB)+"M").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("qemu-img create: %w: %s", err, out)
		}
		defer os.Remove(name)
		disks = append(disks, name)
	}
	m := c.make(initrd, disks, format)
	defer m.end()
	if err := m.start(); err != nil {
		return nil, err
	}
	// Its console ends with it, and so does a wait for what it does not say.
	defer time.AfterFunc(diskPatience, m.end).Stop()
	if err := readUntil(m.console().Read, "guest ready"); err != nil {
		return nil, err
	}
	times := make(diskTimes, len(diskload.Jobs))
	for k := range disks {
		progress("%s, %s, %d", c.name, format, k)
		if err := diskRound(m.console(), "/dev/vd"+string(rune('a'+k)), k > 0, times); err != nil {
			return nil, err
		}
	}
	return times, nil
}

// diskRound has a guest do all jobs on one disk.
func diskRound(console io.ReadWriter, device string, counts bool, times diskTimes) error {
	if _, err := fmt.Fprintf(console, "run diskload time %s\n", device); err != nil {
		return err
	}
	said, err := saidUntil(console, "status ")
	if err != nil {
		return err
	}
	done := 0
	for line := range strings.Lines(said) {
		var k int
		var ns int64
		if _, err := fmt.Sscanf(line, "job %d %d", &k, &ns); err != nil || k != done || k == len(times) {
			continue
		}
		if done++; counts {
			times[k] = append(times[k], time.Duration(ns))
		}
	}
	if done != len(times) {
		return fmt.Errorf("diskload: %s", said)
	}
	return nil
}

// saidUntil returns what is said before text.
func saidUntil(r io.Reader, text string) (string, error) {
	var seen strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		seen.Write(b[:n])
		if before, _, ok := strings.Cut(seen.String(), text); ok {
			return before, nil
		}
		if err != nil {
			return "", fmt.Errorf("no %q: %w: %s", text, err, seen.String())
		}
	}
}

// qemuDiskGuest is a guest of QEMU's, with its serial port on pipes.
type qemuDiskGuest struct {
	cmd *exec.Cmd
	io.Reader
	io.Writer
}

func qemuDisk(machine, device, aio string) func(string, []string, string) diskMachine {
	return func(initrd string, disks []string, format string) diskMachine {
		var args []string
		for k, name := range disks {
			args = append(args, "-drive", fmt.Sprintf("file=%s,format=%s,if=none,id=d%d,cache=writeback,discard=unmap,aio=%s", name, format, k, aio),
				"-device", fmt.Sprintf("%s,drive=d%d", device, k))
		}
		return &qemuDiskGuest{cmd: qemuCommand(machine, guest(lab.GuestVMLinux), initrd, diskWords, args...)}
	}
}

func (q *qemuDiskGuest) start() (err error) {
	if q.Reader, err = q.cmd.StdoutPipe(); err != nil {
		return err
	}
	if q.Writer, err = q.cmd.StdinPipe(); err != nil {
		return err
	}
	return startQEMU(q.cmd)
}

func (q *qemuDiskGuest) console() io.ReadWriter { return q }

func (q *qemuDiskGuest) end() {
	if q.cmd.Process != nil {
		q.cmd.Process.Kill()
		q.cmd.Wait()
	}
}

// vmdDiskGuest is a guest of a vmd of its own.
type vmdDiskGuest struct {
	vmdGuest
	conf string
}

const vmdDiskConf = `vm "bench" {
	disable
	memory %dM
	boot %q
	initrd %q
	cmdline %q
%s}
`

func vmdDisk(initrd string, disks []string, format string) diskMachine {
	var lines strings.Builder
	for _, name := range disks {
		fmt.Fprintf(&lines, "\tdisk %q format %s\n", name, format)
	}
	return &vmdDiskGuest{conf: fmt.Sprintf(vmdDiskConf, guestMiB, guest(lab.GuestVMLinux), initrd, diskWords, lines.String())}
}

func (g *vmdDiskGuest) start() error {
	err := g.daemonWith(g.conf)
	if err == nil {
		err = g.begin()
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, g.log.Bytes())
	}
	return err
}

// console is the guest's tty as a terminal's other end would be.
func (g *vmdDiskGuest) console() io.ReadWriter { return g.tty }
