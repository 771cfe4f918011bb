// Package cgroup makes a control group (cgroup v2) for each VM, where the host
// lets us: on the whole host, or in the subtree that a service manager has
// delegated (Delegate=yes).
//
//	OURS               where this process was started
//	  daemon           this process and its roles, if OURS is not the root: a
//	                   group with controllers has no processes of its own
//	  vmd              given to the user that starts VM processes
//	    starter        the process that starts them
//	    ID             one VM
//
// A service manager cannot start a program again in a group that has groups with
// controllers and processes in it. So it can give us another place for vmd: the
// group of a service beside OURS. A group is only kept for as long as there are
// processes in it; those are moved to daemon there.
//
// A controller is turned on when a VM has a limit that needs it, for it costs
// all of them: with cpu each switch between a VM's process and another one goes
// through every level of groups.
//
// Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint" and
// "Delegation Containment", are why it has to look like that.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this host gives us no groups: there is no cgroup v2,
// or it is not ours to change.
var ErrUnavailable = errors.New("no control groups")

// Limits bound a group. Zero is no limit.
type Limits struct {
	CPUPercent      int    // of one CPU
	MemoryHigh      uint64 // bytes
	Processes       uint64
	IORead, IOWrite uint64   // bytes per second, on each of Devices
	Devices         []uint64 // device numbers, as in stat(2)
}

// Tree is the subtree that holds the VMs' groups.
type Tree struct{ dir string }

// Open prepares the subtree for VM processes that uid starts: in the group called
// beside, next to that of this process, or, if beside is empty, in its own, and
// then moves it out of the way if it must. The error is ErrUnavailable if there
// can be no groups here.
func Open(uid int, beside string) (*Tree, error) {
	mount, err := mountPoint("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	ours := filepath.Join(mount, own)
	var t *Tree
	switch {
	case beside != "":
		ours = filepath.Join(filepath.Dir(ours), filepath.Base(beside))
		var pids []int
		if pids, err = processes(ours); err == nil {
			t, err = open(ours, uid, pids...)
		}
	case own == "/":
		t, err = open(ours, uid)
	default:
		// A second start finds itself in the group it made for the first.
		if filepath.Base(ours) == "daemon" {
			ours = filepath.Dir(ours)
		}
		t, err = open(ours, uid, os.Getpid())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return t, nil
}

// open prepares the subtree in ours, where no processes may stay but pids are.
func open(ours string, uid int, pids ...int) (*Tree, error) {
	for _, pid := range pids {
		daemon := filepath.Join(ours, "daemon")
		if err := mkdir(daemon); err != nil {
			return nil, err
		}
		if err := attach(daemon, pid); err != nil {
			return nil, err
		}
	}
	t := &Tree{filepath.Join(ours, "vmd")}
	if err := mkdir(t.dir); err != nil {
		return nil, err
	}
	starter := filepath.Join(t.dir, "starter")
	if err := mkdir(starter); err != nil {
		return nil, err
	}
	for _, dir := range []string{t.dir, starter} {
		if err := os.Chown(filepath.Join(dir, "cgroup.procs"), uid, -1); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// enable turns a controller on for the VMs' groups. A host may lack it, which
// shows when a limit is set.
func (t *Tree) enable(controller string) {
	for _, dir := range []string{filepath.Dir(t.dir), t.dir} {
		_ = write(dir, "cgroup.subtree_control", "+"+controller)
	}
}

// SetStarter moves process pid, which will start VM processes, to where it may.
func (t *Tree) SetStarter(pid int) error { return attach(filepath.Join(t.dir, "starter"), pid) }

// Group is the control group of one VM.
type Group struct{ dir string }

// Remove removes the group called name, if there is one that no process is in.
func (t *Tree) Remove(name string) error { return unix.Rmdir(filepath.Join(t.dir, name)) }

// Group makes the group called name, for processes that uid starts, or finds it.
// The error may be about limits that cannot be set: then there is a group all
// the same.
func (t *Tree) Group(name string, uid int, l Limits) (*Group, error) {
	g := &Group{filepath.Join(t.dir, name)}
	if err := mkdir(g.dir); err != nil {
		return nil, err
	}
	if err := os.Chown(filepath.Join(g.dir, "cgroup.procs"), uid, -1); err != nil {
		g.Remove()
		return nil, err
	}
	var errs []error
	for _, s := range l.settings() {
		t.enable(s.controller())
		if err := write(g.dir, s.file, s.value); err != nil {
			errs = append(errs, fmt.Errorf("set %s of group %s to %q: %w", s.file, name, s.value, err))
		}
	}
	return g, errors.Join(errs...)
}

// WholeDevice returns the block device of which dev, a number as in stat(2), is
// a partition, or dev itself if it is none.
func WholeDevice(dev uint64) (uint64, error) {
	return wholeDevice("/sys/dev/block", dev)
}

func wholeDevice(sys string, dev uint64) (uint64, error) {
	name := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, name))
	if err != nil {
		return 0, fmt.Errorf("no block device %s: %w", name, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
		return dev, nil
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "dev"))
	if err != nil {
		return 0, fmt.Errorf("device of partition %s: %w", name, err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("device of partition %s: %w", name, err)
	}
	return unix.Mkdev(major, minor), nil
}

// Dir opens the group's directory, for CLONE_INTO_CGROUP.
func (g *Group) Dir() (*os.File, error) { return os.Open(g.dir) }

// Remove removes the group. It fails while there are processes in it.
func (g *Group) Remove() error { return unix.Rmdir(g.dir) }

type setting struct{ file, value string }

// controller is whose file it is (cgroup-v2.rst, "Conventions").
func (s *setting) controller() string {
	c, _, _ := strings.Cut(s.file, ".")
	return c
}

// cpuPeriod is the kernel's default period of cpu.max in microseconds.
const cpuPeriod = 100_000

// settings are the files to write for l.
func (l *Limits) settings() []setting {
	var s []setting
	if l.CPUPercent > 0 {
		s = append(s, setting{"cpu.max", fmt.Sprintf("%d %d", l.CPUPercent*cpuPeriod/100, cpuPeriod)})
	}
	if l.MemoryHigh > 0 {
		s = append(s, setting{"memory.high", strconv.FormatUint(l.MemoryHigh, 10)})
	}
	if l.Processes > 0 {
		s = append(s, setting{"pids.max", strconv.FormatUint(l.Processes, 10)})
	}
	for _, d := range l.Devices {
		v := fmt.Sprintf("%d:%d", unix.Major(d), unix.Minor(d))
		if l.IORead > 0 {
			v += " rbps=" + strconv.FormatUint(l.IORead, 10)
		}
		if l.IOWrite > 0 {
			v += " wbps=" + strconv.FormatUint(l.IOWrite, 10)
		}
		if l.IORead+l.IOWrite > 0 {
			s = append(s, setting{"io.max", v})
		}
	}
	return s
}

func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// processes lists those that are in the group dir itself.
func processes(dir string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("processes of %s: %w", dir, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func attach(dir string, pid int) error { return write(dir, "cgroup.procs", strconv.Itoa(pid)) }

// write writes one value: the files of a group take one write each.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// mountPoint finds where cgroup v2 is mounted (proc_pid_mountinfo(5)). Of
// several the last is in sight for certain: it may lie over others.
func mountPoint(mountinfo string) (string, error) {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	mount := ""
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			mount = f[4]
		}
	}
	if mount == "" {
		return "", fmt.Errorf("%w: cgroup v2 is not mounted", ErrUnavailable)
	}
	return mount, nil
}

// ownGroup reads the group of this process (cgroups(7), /proc/pid/cgroup).
func ownGroup(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for line := range strings.Lines(string(data)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && strings.HasPrefix(own, "/") {
			return own, nil
		}
	}
	return "", fmt.Errorf("%w: this process is in none", ErrUnavailable)
}
