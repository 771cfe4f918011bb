package parent

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/vmd/config"
)

// tty is the pty of a VM: its process has copies of both ends. We keep ours so
// that it survives a guest's reset, and the slave so that the master does not
// see an end while nobody is attached.
type tty struct {
	name          string
	master, slave *os.File
}

func (t *tty) close() {
	t.master.Close()
	t.slave.Close()
}

// openTTY makes a pty that belongs to o.
func openTTY(o *config.Owner) (*tty, error) {
	t, err := newPTY()
	if err != nil {
		return nil, fmt.Errorf("make a pty: %w", err)
	}
	gid, mode := ttyAccess(o)
	err = errors.Join(t.slave.Chown(int(o.UID), gid), t.slave.Chmod(mode))
	if err == nil {
		err = setRaw(int(t.slave.Fd()))
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("set up %s: %w", t.name, err)
	}
	return t, nil
}

// newPTY opens a pair without a path: what /dev/pts/N is by now may be somebody
// else's (TIOCGPTPEER, ioctl_tty(2)).
func newPTY() (*tty, error) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(m.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		m.Close()
		return nil, fmt.Errorf("unlock: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("number: %w", err)
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		m.Close()
		return nil, fmt.Errorf("open the other end: %w", errno)
	}
	name := "/dev/pts/" + strconv.Itoa(n)
	return &tty{name: name, master: m, slave: os.NewFile(s, name)}, nil
}

// adoptTTY makes a tty of descriptors that a VM process says are its pty; nil if
// they are none.
func adoptTTY(master, slave *os.File) *tty {
	t := &tty{master: master, slave: slave}
	if master != nil && slave != nil && isDevice(master) {
		if n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN); err == nil {
			t.name = "/dev/pts/" + strconv.Itoa(n)
			return t
		}
	}
	for _, f := range []*os.File{master, slave} {
		if f != nil {
			imsg.Discard(f)
		}
	}
	return nil
}

// isDevice reports whether f is a character device, without asking whoever
// serves its file system (statx(2), AT_STATX_DONT_SYNC): a disk on FUSE would
// have its server answer an ioctl.
func isDevice(f *os.File) bool {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR
}

// ttyAccess is the group and mode of an owner's tty.
func ttyAccess(o *config.Owner) (gid int, mode os.FileMode) {
	if o.HasGID {
		return int(o.GID), 0o660
	}
	if g, err := user.LookupGroup("tty"); err == nil {
		if n, err := parseID(g.Gid); err == nil {
			return int(n), 0o620
		}
	}
	return 0, 0o600
}

// setRaw makes a terminal pass bytes on as they are (cfmakeraw, termios(3)).
func setRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
