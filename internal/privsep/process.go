// Package privsep is how vmd is made of several processes: the table of roles,
// the way into a role, and the loop that a role runs.
//
// The parent calls Spawn, which runs this program again. There main calls
// Inherit, looks the role up, and calls its Run, which calls Confine before it
// reads anything that did not come from the parent.
package privsep

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/logging"
)

// Process is a role process seen from inside. UID and GID, when not zero,
// replace the role's user in Confine.
type Process struct {
	Role   Role
	Name   string
	Parent *imsg.Conn // whoever spawned this process
	Log    zerolog.Logger
	Loop   *Loop

	UID, GID uint32
}

// RoleName returns the role that this process was spawned in, or "" if it was
// started by a person.
func RoleName() string { return os.Getenv(envRole) }

// SetName gives the process the name that ps and pgrep show for short: that of
// its role or VM, or vmd. It must run on the process's first thread, which
// package initialisation does: that thread's name is the process's.
func SetName() error {
	name := os.Getenv(envName)
	if name == "" {
		name = "vmd"
	}
	b := [16]byte{} // TASK_COMM_LEN, with the zero at its end
	copy(b[:15], name)
	return setComm(&b)
}

// Inherit makes a Process of what Spawn left.
func Inherit() (*Process, error) {
	r, ok := Roles[RoleName()]
	if !ok {
		return nil, fmt.Errorf("role %q: no such role", RoleName())
	}
	// A role ends when its parent does, and a VM process not even then: no
	// signal meant for a terminal's programs is to end it. A log that nobody
	// reads any more must not either.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1)
	unix.CloseOnExec(ChildSocket)
	conn, err := imsg.New(os.NewFile(ChildSocket, "parent"))
	if err != nil {
		return nil, fmt.Errorf("%s: this is a role of vmd and not to be started by hand: %w", r.Name, err)
	}
	name := os.Getenv(envName)
	return &Process{
		Role:   r,
		Name:   name,
		Parent: conn,
		Log:    logging.New(name, os.Getenv(envVerbose) != ""),
		Loop:   NewLoop(),
	}, nil
}
