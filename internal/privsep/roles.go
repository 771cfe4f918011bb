package privsep

import (
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// User and the groups that vmd's processes run as.
const (
	User      = "_vmd"
	GroupSNMP = "_agentx"
)

// Role says what a process may do: everything that is not here, it gives up in
// Confine before it reads a byte of anybody else's.
type Role struct {
	// Name is the package, the log field and what ps shows.
	Name string
	// Group is the primary group instead of User's own.
	Group string
	// Namespaces are unshared when the process is spawned.
	Namespaces uintptr
	// Root is what the process sees as its file system.
	Root Root
	// Caps are kept, in every set that the process needs them in.
	Caps []cap.Value
	// Promises name the system calls that are left (package sandbox).
	Promises []string
	// Files is the limit of open descriptors; 0 leaves it.
	Files uint64
	// Locked is how many bytes of memory the process and the kernel in its
	// place may hold; 0 leaves the limit.
	Locked uint64
}

// Root is a view of the file system.
type Root int

// The views.
const (
	RootEmpty  Root = iota // an empty read-only directory
	RootTun                // nothing but /dev/net/tun
	RootSelf               // nothing but this program, as /vmd, and an empty directory
	RootParent             // the host's
)

// isolated is what every process but the parent has of its own.
const isolated = unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Roles is the table of all processes.
var Roles = map[string]Role{
	// parent is here for the picture only: it is root and is not confined.
	"parent": {Name: "parent", Root: RootParent},

	"priv": {
		Name:       "priv",
		Namespaces: isolated, // not the network: it is what priv is for
		Root:       RootTun,
		Caps:       []cap.Value{cap.NET_ADMIN},
		Promises:   []string{"stdio", "tun"},
		Files:      1024,
	},
	"control": {
		Name:       "control",
		Namespaces: isolated | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Root:       RootEmpty,
		Promises:   []string{"stdio", "accept"},
		Files:      4096,
	},
	"vmm": {
		Name:       "vmm",
		Namespaces: isolated | unix.CLONE_NEWNET,
		Root:       RootSelf,
		// What it takes to jail a child: make its namespaces and root
		// (SYS_ADMIN), become its user (SETUID, SETGID), drop what is left
		// (SETPCAP), and end it (KILL).
		Caps:     []cap.Value{cap.SYS_ADMIN, cap.SETUID, cap.SETGID, cap.SETPCAP, cap.KILL},
		Promises: []string{"stdio", "memfd", "spawn"},
		Files:    65536,
	},
	"agentx": {
		Name:       "agentx",
		Group:      GroupSNMP,
		Namespaces: isolated | unix.CLONE_NEWNET, // the host's pids: it reads VMs' CPU clocks
		Root:       RootEmpty,
		Promises:   []string{"stdio"},
		Files:      4096,
	},
	"vm": {
		Name:       "vm",
		Namespaces: isolated | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Root:       RootEmpty,
		Promises:   []string{"stdio", "kvm", "guest"},
		Files:      512,
	},
}
