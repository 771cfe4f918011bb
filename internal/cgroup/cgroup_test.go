package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSettings(t *testing.T) {
	dev := unix.Mkdev(8, 16)
	for _, c := range []struct {
		l    Limits
		want []setting
	}{
		{Limits{}, nil},
		{Limits{CPUPercent: 250}, []setting{{"cpu.max", "250000 100000"}}},
		{Limits{CPUPercent: 50, MemoryHigh: 1 << 30, Processes: 100}, []setting{{"cpu.max", "50000 100000"}, {"memory.high", "1073741824"}, {"pids.max", "100"}}},
		{Limits{IORead: 5, Devices: []uint64{dev}}, []setting{{"io.max", "8:16 rbps=5"}}},
		{Limits{IORead: 5, IOWrite: 6, Devices: []uint64{dev}}, []setting{{"io.max", "8:16 rbps=5 wbps=6"}}},
		{Limits{Devices: []uint64{dev}}, nil},
	} {
		if got := c.l.settings(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.l, got, c.want)
		}
	}
}

func TestWhereWeAre(t *testing.T) {
	file := func(s string) string {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const v1 = "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	const v2 = "42 23 0:39 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	if got, err := mountPoint(file(v1 + v2)); got != "/sys/fs/cgroup/unified" || err != nil {
		t.Errorf("mount %q, %v", got, err)
	}
	if _, err := mountPoint(file(v1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("v1 only: %v", err)
	}
	if got, err := ownGroup(file("3:cpu:/x\n0::/system.slice/vmd.service\n")); got != "/system.slice/vmd.service" || err != nil {
		t.Errorf("own %q, %v", got, err)
	}
	if _, err := ownGroup(file("3:cpu:/x\n")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("none: %v", err)
	}
}

// TestTree makes real groups where this machine has cgroup v2 that is ours.
func TestTree(t *testing.T) {
	mount, err := mountPoint("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	top := filepath.Join(mount, own, "vmd-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Skipf("cgroup v2 is not ours to change: %v", err)
	}
	t.Cleanup(func() {
		for _, d := range []string{"vmd/7", "vmd/starter", "vmd", "daemon", ""} {
			unix.Rmdir(filepath.Join(top, d))
		}
	})
	tree, err := open(top, 12345)
	if err != nil {
		t.Fatal(err)
	}
	g, err := tree.Group("7", 12345, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Group("7", 12345, Limits{}); err != nil {
		t.Errorf("a group that is there already: %v", err)
	}
	st, err := os.Stat(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil || st.Sys() == nil {
		t.Fatal(err)
	}
	if uid := ownerOf(t, filepath.Join(g.dir, "cgroup.procs")); uid != 12345 {
		t.Errorf("cgroup.procs belongs to %d", uid)
	}
	dir, err := g.Dir()
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	testControllers(t, tree, top)
	if procs, _ := os.ReadFile(filepath.Join(top, "cgroup.procs")); strings.TrimSpace(string(procs)) != "" {
		t.Errorf("processes %q in the top group", procs)
	}
}

// testControllers: none is on until a VM has a limit, and then the one it needs.
func testControllers(t *testing.T, tree *Tree, top string) {
	t.Helper()
	words := func(file string) []string {
		b, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(b))
	}
	if on := words("vmd/cgroup.subtree_control"); len(on) > 0 {
		t.Errorf("controllers %v for VMs without limits", on)
	}
	g, err := tree.Group("7", 12345, Limits{CPUPercent: 50})
	if !slices.Contains(words("cgroup.controllers"), "cpu") {
		if err == nil {
			t.Error("a limit of a controller that is not there")
		}
		return
	}
	if on := words("vmd/cgroup.subtree_control"); err != nil || !reflect.DeepEqual(on, []string{"cpu"}) {
		t.Errorf("controllers %v, %v", on, err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

// TestTreeOfAnother: whoever keeps a group alive is moved out of the way.
func TestTreeOfAnother(t *testing.T) {
	mount, err := mountPoint("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	own, err := ownGroup("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	top := filepath.Join(mount, own, "vmd-test-keeper-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Skipf("cgroup v2 is not ours to change: %v", err)
	}
	keeper := exec.Command("sleep", "infinity")
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		keeper.Process.Kill()
		keeper.Wait()
		for _, d := range []string{"vmd/starter", "vmd", "daemon", ""} {
			unix.Rmdir(filepath.Join(top, d))
		}
	})
	if err := attach(top, keeper.Process.Pid); err != nil {
		t.Fatal(err)
	}
	pids, err := processes(top)
	if err != nil || !reflect.DeepEqual(pids, []int{keeper.Process.Pid}) {
		t.Fatalf("processes %v, %v, want %d", pids, err, keeper.Process.Pid)
	}
	if _, err := open(top, 12345, pids...); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]int{top: nil, filepath.Join(top, "daemon"): pids} {
		if got, err := processes(dir); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("processes of %s: %v, %v, want %v", dir, got, err, want)
		}
	}
	if _, err := processes(filepath.Join(top, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a group that is not there: %v", err)
	}
}

func ownerOf(t *testing.T, name string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}

// TestWholeDevice builds the part of sysfs that says what is a partition of what.
func TestWholeDevice(t *testing.T) {
	sys := t.TempDir()
	disk := filepath.Join(sys, "devices", "sda")
	part := filepath.Join(disk, "sda1")
	block := filepath.Join(sys, "block")
	for _, d := range []string{part, block} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{filepath.Join(disk, "dev"): "8:0\n", filepath.Join(part, "dev"): "8:1\n", filepath.Join(part, "partition"): "1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"8:0": disk, "8:1": part} {
		if err := os.Symlink(to, filepath.Join(block, link)); err != nil {
			t.Fatal(err)
		}
	}
	whole := unix.Mkdev(8, 0)
	for _, dev := range []uint64{whole, unix.Mkdev(8, 1)} {
		if got, err := wholeDevice(block, dev); got != whole || err != nil {
			t.Errorf("%d: %d, %v", dev, got, err)
		}
	}
	if _, err := wholeDevice(block, unix.Mkdev(0, 42)); err == nil {
		t.Error("a device that there is not")
	}
}

// TestLimitRefused: a limit that the kernel does not take costs the others
// nothing.
func TestLimitRefused(t *testing.T) {
	tree := &Tree{t.TempDir()}
	for _, f := range []string{"cgroup.procs", "cpu.max"} {
		if err := os.MkdirAll(filepath.Join(tree.dir, "7"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree.dir, "7", f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g, err := tree.Group("7", os.Getuid(), Limits{MemoryHigh: 1 << 20, CPUPercent: 50})
	if g == nil || err == nil || !strings.Contains(err.Error(), "memory.high") {
		t.Fatalf("group %v, error %v", g, err)
	}
	if b, _ := os.ReadFile(filepath.Join(tree.dir, "7", "cpu.max")); string(b) != "50000 100000" {
		t.Errorf("cpu.max is %q", b)
	}
}
