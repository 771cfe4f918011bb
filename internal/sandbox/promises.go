package sandbox

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// call allows a system call with any arguments.
func call(name string, nr uint32) rule { return rule{nr: nr, name: name} }

// arg allows a system call when its argument n is one of vals.
func arg(name string, nr uint32, n int, vals ...uint32) rule {
	return rule{nr: nr, name: name, test: &argTest{arg: n, vals: vals}}
}

// masked allows a system call when its argument n has the bits val of mask.
func masked(name string, nr uint32, n int, mask, val uint32) rule {
	return rule{nr: nr, name: name, test: &argTest{arg: n, mask: mask, vals: []uint32{val}}}
}

// ioctls allows ioctl(2) with the given request numbers.
func ioctls(vals ...uint32) rule { return arg("ioctl", unix.SYS_IOCTL, 1, vals...) }

// threadFlags are what the Go runtime clones a thread with, less CLONE_SETTLS
// (runtime/os_linux.go).
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// newNamespaces are the flags of clone(2) that would make a namespace.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// table holds the promises. Each entry says what needs it.
var table = map[string]func() []rule{
	// What the Go runtime itself calls at any time.
	"runtime": func() []rule {
		return []rule{
			call("futex", unix.SYS_FUTEX),
			call("nanosleep", unix.SYS_NANOSLEEP),
			call("clock_nanosleep", unix.SYS_CLOCK_NANOSLEEP),
			call("clock_gettime", unix.SYS_CLOCK_GETTIME), // the vDSO may fall back; CPU clocks
			call("sched_yield", unix.SYS_SCHED_YIELD),
			call("sched_getaffinity", unix.SYS_SCHED_GETAFFINITY),
			call("pread64", unix.SYS_PREAD64), // each second: the CPU limit, for GOMAXPROCS (internal/runtime/cgroup)
			call("munmap", unix.SYS_MUNMAP),
			call("madvise", unix.SYS_MADVISE),
			call("mincore", unix.SYS_MINCORE),
			masked("mmap", unix.SYS_MMAP, 2, unix.PROT_EXEC, 0),
			masked("mprotect", unix.SYS_MPROTECT, 2, unix.PROT_EXEC, 0),
			call("rt_sigaction", unix.SYS_RT_SIGACTION),
			call("rt_sigprocmask", unix.SYS_RT_SIGPROCMASK),
			call("rt_sigreturn", unix.SYS_RT_SIGRETURN),
			call("sigaltstack", unix.SYS_SIGALTSTACK),
			masked("clone", unix.SYS_CLONE, 0, threadFlags|newNamespaces, threadFlags),
			call("set_robust_list", unix.SYS_SET_ROBUST_LIST),
			call("rseq", unix.SYS_RSEQ),
			call("gettid", unix.SYS_GETTID),
			call("getpid", unix.SYS_GETPID),
			arg("tgkill", unix.SYS_TGKILL, 0, uint32(os.Getpid())), // preemption, kicks
			call("exit", unix.SYS_EXIT),
			call("exit_group", unix.SYS_EXIT_GROUP),
			call("restart_syscall", unix.SYS_RESTART_SYSCALL),
			call("getrandom", unix.SYS_GETRANDOM), // maps, crypto/rand, viornd
			arg("prctl", unix.SYS_PRCTL, 0, unix.PR_SET_VMA, unix.PR_SET_NAME),
			call("epoll_create1", unix.SYS_EPOLL_CREATE1),
			call("epoll_ctl", unix.SYS_EPOLL_CTL),
			call("epoll_pwait", unix.SYS_EPOLL_PWAIT),
			call("eventfd2", unix.SYS_EVENTFD2),
			arg("fcntl", unix.SYS_FCNTL, 1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC, unix.F_GET_SEALS),
		}
	},

	// Memory, clocks and descriptors that we hold, and messages on them.
	"stdio": func() []rule {
		return []rule{
			call("read", unix.SYS_READ),
			call("write", unix.SYS_WRITE),
			call("readv", unix.SYS_READV),
			call("writev", unix.SYS_WRITEV),
			call("close", unix.SYS_CLOSE),
			call("fstat", unix.SYS_FSTAT),
			call("lseek", unix.SYS_LSEEK),
			call("recvmsg", unix.SYS_RECVMSG),
			call("sendmsg", unix.SYS_SENDMSG),
			call("recvfrom", unix.SYS_RECVFROM),
			call("sendto", unix.SYS_SENDTO),
			call("shutdown", unix.SYS_SHUTDOWN),
			call("getsockname", unix.SYS_GETSOCKNAME),
			call("getpeername", unix.SYS_GETPEERNAME),
			call("getsockopt", unix.SYS_GETSOCKOPT), // SO_TYPE, SO_PEERCRED, SO_PEERGROUPS
			call("setsockopt", unix.SYS_SETSOCKOPT), // net makes sockets out of descriptors
			call("getuid", unix.SYS_GETUID),
			call("geteuid", unix.SYS_GETEUID),
			call("getrusage", unix.SYS_GETRUSAGE),
			call("uname", unix.SYS_UNAME),
		}
	},

	// Accepting clients on a socket that is bound already.
	"accept": func() []rule {
		return []rule{
			call("accept4", unix.SYS_ACCEPT4),
		}
	},

	// Opening taps. The file system of who promises this holds nothing else.
	"tun": func() []rule {
		return []rule{
			call("openat", unix.SYS_OPENAT),
			ioctls(unix.TUNSETIFF, unix.TUNGETIFF, unix.TUNSETVNETHDRSZ, unix.TUNSETVNETLE, unix.TUNSETOFFLOAD, unix.TUNSETQUEUE, tunSetCarrier),
		}
	},

	// Counter pages: made, sized and sealed.
	"memfd": func() []rule {
		return []rule{
			call("memfd_create", unix.SYS_MEMFD_CREATE),
			call("ftruncate", unix.SYS_FTRUNCATE),
			arg("fcntl", unix.SYS_FCNTL, 1, unix.F_ADD_SEALS),
		}
	},

	// Spawning processes that jail themselves. A filter is inherited, so
	// this holds what a VM process calls on its way into its own.
	"spawn": func() []rule {
		return slices.Concat(jailing(), kvmRules(), kvmReceiveRules(), kvmEncryptRules(), guestRules())
	},

	// What hv/kvm asks of /dev/kvm, a VM and a vCPU.
	"kvm": kvmRules,

	// The same of one that takes over a machine that ran elsewhere.
	"kvm-receive": kvmReceiveRules,

	// The same of one whose guest's memory is encrypted.
	"kvm-encrypt": kvmEncryptRules,

	// Disks, taps and the console of a guest.
	"guest": guestRules,
}

func kvmRules() []rule { return []rule{ioctls(kvmRequests...)} }

func kvmReceiveRules() []rule { return []rule{ioctls(kvmReceiveRequests...)} }

func kvmEncryptRules() []rule { return []rule{ioctls(kvmEncryptRequests...)} }

func guestRules() []rule {
	return []rule{
		call("pread64", unix.SYS_PREAD64),
		call("pwrite64", unix.SYS_PWRITE64),
		call("preadv", unix.SYS_PREADV),
		call("pwritev", unix.SYS_PWRITEV),
		call("preadv2", unix.SYS_PREADV2),
		call("pwritev2", unix.SYS_PWRITEV2),
		call("fsync", unix.SYS_FSYNC),
		call("fdatasync", unix.SYS_FDATASYNC),
		call("fallocate", unix.SYS_FALLOCATE),
		call("flock", unix.SYS_FLOCK),     // the disks of a guest that moves change hands (vmd/vm/disks.go)
		call("accept4", unix.SYS_ACCEPT4), // a later vmm on the process's own socket
		call("ppoll", unix.SYS_PPOLL),     // waiting for a tap
		call("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY),
		ioctls(unix.TUNGETIFF, unix.TUNSETVNETHDRSZ, unix.TUNSETVNETLE, unix.TUNSETOFFLOAD, unix.TUNSETQUEUE, unix.TUNSETTXFILTER, tunSetCarrier),
		ioctls(vhostRequests...),
		ioctls(unix.BLKGETSIZE64, unix.BLKSSZGET, unix.BLKDISCARD, unix.BLKZEROOUT, unix.TCFLSH, unix.TIOCOUTQ),
	}
}

// tunSetCarrier is TUNSETCARRIER, _IOW('T', 226, int) (linux/if_tun.h).
const tunSetCarrier = 0x400454e2

// jailing is what fork, exec and privsep's Confine are made of.
func jailing() []rule {
	return []rule{
		call("clone", unix.SYS_CLONE),
		call("clone3", unix.SYS_CLONE3),
		call("execve", unix.SYS_EXECVE),
		call("wait4", unix.SYS_WAIT4),
		call("waitid", unix.SYS_WAITID),
		call("kill", unix.SYS_KILL),
		call("tgkill", unix.SYS_TGKILL), // the child's own pid is another
		call("pidfd_open", unix.SYS_PIDFD_OPEN),
		call("pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL),
		call("pipe2", unix.SYS_PIPE2),
		call("dup2", unix.SYS_DUP2),
		call("dup3", unix.SYS_DUP3),
		call("socketpair", unix.SYS_SOCKETPAIR),
		call("setsid", unix.SYS_SETSID),
		call("getppid", unix.SYS_GETPPID),
		call("openat", unix.SYS_OPENAT),
		call("open", unix.SYS_OPEN), // runtime start: the huge page size
		call("newfstatat", unix.SYS_NEWFSTATAT),
		call("readlinkat", unix.SYS_READLINKAT),
		call("arch_prctl", unix.SYS_ARCH_PRCTL),
		call("prlimit64", unix.SYS_PRLIMIT64),
		call("prctl", unix.SYS_PRCTL),
		call("capget", unix.SYS_CAPGET),
		call("capset", unix.SYS_CAPSET),
		call("setgroups", unix.SYS_SETGROUPS),
		call("setresgid", unix.SYS_SETRESGID),
		call("setresuid", unix.SYS_SETRESUID),
		call("getgid", unix.SYS_GETGID),
		call("getegid", unix.SYS_GETEGID),
		call("mount", unix.SYS_MOUNT),
		call("umount2", unix.SYS_UMOUNT2),
		call("pivot_root", unix.SYS_PIVOT_ROOT),
		call("chdir", unix.SYS_CHDIR),
		call("seccomp", unix.SYS_SECCOMP),
		call("sysinfo", unix.SYS_SYSINFO),
	}
}
