package privsep

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ProgramInRoot is where a process of RootSelf finds this program.
const ProgramInRoot = "/vmd"

// scaffold is a directory that every host has: the new root is mounted over it
// in this process's own mount namespace, where nobody else sees it. A root of
// ours has a directory of that name for the next process to do the same.
const scaffold = "/proc"

// changeRoot replaces the file system by what r names. The process must have a
// mount namespace of its own.
func changeRoot(r Root) error {
	if r == RootParent {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var self, tun int
	var err error
	switch r {
	case RootSelf:
		self, err = openSelf()
	case RootTun:
		tun, err = openTree("/dev/net/tun")
	}
	if err != nil {
		return err
	}
	if err := unix.Mount("vmd", scaffold, "tmpfs", unix.MS_NOSUID, "mode=0555,size=64k,nr_inodes=16"); err != nil {
		return fmt.Errorf("mount an empty directory: %w", err)
	}
	if err := unix.Chdir(scaffold); err != nil {
		return err
	}
	switch r {
	case RootSelf:
		if err := moveTree(self, "vmd"); err != nil {
			return err
		}
		if err := os.Mkdir("."+scaffold, 0o555); err != nil {
			return err
		}
	case RootTun:
		if err := moveTree(tun, "tun"); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	ro := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID)
	if r != RootTun {
		ro |= unix.MS_NODEV
	}
	if err := unix.Mount("", "/", "", ro, ""); err != nil {
		return fmt.Errorf("make the new root read-only: %w", err)
	}
	return nil
}

// openSelf clones the mount of this program. It is found by its path: what
// /proc/self/exe leads to lies in the mount namespace of whoever started us,
// and cannot be mounted in ours.
func openSelf() (int, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return -1, err
	}
	fd, err := openTree(path)
	if err != nil {
		return -1, fmt.Errorf("%w; was the program replaced while it ran?", err)
	}
	return fd, nil
}

// openTree clones the mount of the file at path.
func openTree(path string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone the mount of %s: %w", path, err)
	}
	return fd, nil
}

// moveTree mounts the cloned mount fd on a new file called name.
func moveTree(fd int, name string) error {
	defer unix.Close(fd)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", name, err)
	}
	return nil
}
