package parent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// paths are where the daemon keeps things. Tests put them elsewhere through the
// environment.
type paths struct {
	socket string // what clients connect to
	run    string // gone after a boot
	state  string // stays
	kvm    string
	subuid string
	subgid string
}

func defaultPaths() paths {
	env := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	return paths{
		socket: env("VMD_SOCKET", "/run/vmd.sock"),
		run:    env("VMD_RUN_DIR", "/run/vmd"),
		state:  env("VMD_STATE_DIR", "/var/lib/vmd"),
		kvm:    "/dev/kvm",
		subuid: "/etc/subuid",
		subgid: "/etc/subgid",
	}
}

// vmSocket is where the process of a VM listens for a vmm.
func (p *paths) vmSocket(id uint32) string {
	return filepath.Join(p.run, "vm", strconv.FormatUint(uint64(id), 10))
}

func (p *paths) stateFile() string { return filepath.Join(p.state, "state") }

// prepare makes the directories, and keeps a second daemon from using them at
// the same time: the lock is released when it is closed.
func (p *paths) prepare() (lock *os.File, err error) {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{p.run, 0o711},
		{filepath.Join(p.run, "vm"), 0o700},
		{p.state, 0o700},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return nil, err
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return nil, err
		}
	}
	lock, err = os.Open(p.run)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another vmd is running")
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", p.run, err)
	}
	return lock, nil
}

// bootID tells this boot of the host from all others.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(b)
}
