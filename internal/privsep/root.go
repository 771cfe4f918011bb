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
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	self, err := os.Open("/proc/self/exe")
	if err == nil {
		defer self.Close()
	} else if r == RootSelf {
		return err
	}
	tun, err := openTree("/dev/net/tun", r == RootTun)
	if err != nil {
		return err
	}
	if err := unix.Mount("vmd", scaffold, "tmpfs", flags&^unix.MS_NODEV, "mode=0555,size=64k,nr_inodes=16"); err != nil {
		return fmt.Errorf("mount an empty directory: %w", err)
	}
	if err := unix.Chdir(scaffold); err != nil {
		return err
	}
	switch r {
	case RootSelf:
		if err := bindFile(self, "vmd"); err != nil {
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

// bindFile makes the open file f appear under name.
func bindFile(f *os.File, name string) error {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone the mount of %s: %w", f.Name(), err)
	}
	return moveTree(fd, name)
}

// openTree clones the mount of the file at path, if want.
func openTree(path string, want bool) (int, error) {
	if !want {
		return -1, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", path, err)
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
