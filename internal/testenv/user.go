package testenv

import "golang.org/x/sys/unix"

// AsUser runs f on a thread that belongs to user uid, the group of the same
// number and no other one, and waits for it. It takes root. f must not call
// t.FailNow or t.Skip.
func AsUser(uid uint32, f func() error) error {
	return onThread(func() error {
		// Raw system calls change this thread's ids; package unix changes those
		// of all threads.
		n := uintptr(uid)
		for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, n, n, n}, {unix.SYS_SETRESUID, n, n, n}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				return errno
			}
		}
		return f()
	})
}
