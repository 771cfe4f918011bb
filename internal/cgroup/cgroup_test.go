package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
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
	tree, err := open(top, true, 12345)
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
	if procs, _ := os.ReadFile(filepath.Join(top, "cgroup.procs")); strings.TrimSpace(string(procs)) != "" {
		t.Errorf("processes %q in the top group", procs)
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
