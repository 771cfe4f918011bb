package vm

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmd/hv/disk"
)

// drive is one of the guest's disks, by what it takes to hand it over.
type drive struct {
	image  *disk.Tracked
	file   *os.File // the image's own; its lock tells whose disk it is
	format string
	serial string

	readOnly bool // and never locked
	locked   bool
}

// lockTries and lockPause are how often and how fast a lock is tried for that
// somebody is about to give up.
const (
	lockTries = 20
	lockPause = 50 * time.Millisecond
)

// lockDrives locks all disks, or none.
func (v *vm) lockDrives() error {
	for try := 1; ; try++ {
		err := v.tryDrives()
		if err == nil || try == lockTries || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(lockPause)
	}
}

func (v *vm) tryDrives() error {
	for i, d := range v.drives {
		if d.locked || d.readOnly {
			continue
		}
		if err := d.flock(unix.LOCK_EX | unix.LOCK_NB); err != nil {
			v.unlockDrives()
			return fmt.Errorf("lock disk %d: %w", i, err)
		}
		d.locked = true
	}
	return nil
}

// unlockDrives gives the disks up, for the guest's next process to have them.
func (v *vm) unlockDrives() {
	for _, d := range v.drives {
		if d.readOnly {
			continue
		}
		d.flock(unix.LOCK_UN) // fails only for what is no file
		d.locked = false
	}
}

// flock changes the lock of the open file, which all its descriptors share.
func (d *drive) flock(how int) error {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var lerr error
	err = raw.Control(func(fd uintptr) {
		for {
			if lerr = unix.Flock(int(fd), how); lerr != unix.EINTR {
				return
			}
		}
	})
	return errors.Join(err, lerr)
}

// quiesceDrives makes the images such that somebody else may open them.
func (v *vm) quiesceDrives() error {
	for i, d := range v.drives {
		if err := disk.Quiesce(d.image); err != nil {
			return fmt.Errorf("flush disk %d: %w", i, err)
		}
	}
	return nil
}
