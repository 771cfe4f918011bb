package parent

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// findVM returns the process that listens on the Unix socket at path; 0 if
// there is none. It is for a VM whose pid the state file does not have: the
// daemon died between its start and the next save.
func findVM(path string) int {
	inode := socketInode(path)
	if inode == "" {
		return 0
	}
	want := "socket:[" + inode + "]"
	procs, _ := os.ReadDir("/proc")
	for _, d := range procs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fds, _ := filepath.Glob(filepath.Join("/proc", d.Name(), "fd", "*"))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == want {
				return pid
			}
		}
	}
	return 0
}

// zombies returns the children of parent that have ended and that nobody has
// waited for (proc_pid_stat(5)).
func zombies(parent int) (pids []int) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", d.Name(), "stat"))
		if err != nil {
			continue
		}
		// The name, in brackets, may have anything in it.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// socketInode finds the inode of a listening socket (proc(5), /proc/net/unix).
func socketInode(path string) string {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return ""
	}
	const listening = "00010000" // __SO_ACCEPTCON
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) == 8 && f[7] == path && f[3] == listening {
			return f[6]
		}
	}
	return ""
}

// resident is the resident memory of process pid (proc_pid_statm(5)); 0 if it
// is not to be had.
func resident(pid int) uint64 {
	if pid == 0 {
		return 0
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	n, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return n * uint64(os.Getpagesize())
}
