package parent

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// findVM returns the process that listens on the Unix socket at path; 0 if
// there is none. It is for a VM whose pid the state file does not have: the
// daemon died between its start and the next save.
//
// A user who has a file system of their own (user_namespaces(7)) can listen at a
// path of the same name, and hold it in a process that does not let itself be
// looked into; so only processes whose user ours can be count.
func findVM(path string, ours func(uid uint32) bool) int {
	inodes := socketInodes(path)
	if len(inodes) == 0 {
		return 0
	}
	procs, _ := os.ReadDir("/proc")
	for _, d := range procs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if uid, ok := uidOf(pid); !ok || !ours(uid) {
			continue
		}
		fds, _ := filepath.Glob(filepath.Join("/proc", d.Name(), "fd", "*"))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && slices.Contains(inodes, to) {
				return pid
			}
		}
	}
	return 0
}

// uidOf is the user that process pid runs as (proc_pid_status(5)).
func uidOf(pid int) (uid uint32, ok bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, false
	}
	_, line, ok := strings.Cut(string(b), "\nUid:\t")
	if !ok {
		return 0, false
	}
	uid, err = parseID(line[:strings.IndexAny(line+"\t", "\t\n")])
	return uid, err == nil
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

// socketInodes finds the sockets that listen at path, as /proc/PID/fd shows them
// (proc(5), /proc/net/unix).
func socketInodes(path string) (inodes []string) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	const listening = "00010000" // __SO_ACCEPTCON
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) == 8 && f[7] == path && f[3] == listening {
			inodes = append(inodes, "socket:["+f[6]+"]")
		}
	}
	return inodes
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
