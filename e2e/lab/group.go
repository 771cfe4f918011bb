package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
)

// GroupVar is the environment variable with the control group that here.sh has
// made for the tests and all that they start, which are in groups below it.
const GroupVar = "VMD_TEST_GROUP"

// Groups is the control group below which all of a test's are, or "" if there
// are none for it.
func Groups() string {
	if testenv.InLab() {
		return groupMount
	}
	return os.Getenv(GroupVar)
}

// groupMount is where control groups are in the lab, and in the place that
// here.sh makes.
const groupMount = "/sys/fs/cgroup"

// hereGroup is the name of this process's group for here.sh.
func hereGroup() string { return fmt.Sprintf("vmd-here-%d", os.Getpid()) }

// endGroup ends what is left of a run of here.sh, and removes its group.
func endGroup() {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			removeGroup(filepath.Join(f[1], hereGroup()))
		}
	}
}

// removeGroup removes a control group and those below it, once the processes
// have gone that it kills.
func removeGroup(root string) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(root); err != nil {
			return
		}
		_ = os.WriteFile(filepath.Join(root, "cgroup.kill"), []byte("1"), 0o644) // since Linux 5.14
		var dirs []string
		filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			unix.Rmdir(dir)
		}
	}
}
