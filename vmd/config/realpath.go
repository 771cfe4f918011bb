package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may lead through (MAXSYMLINKS of
// the kernel).
const maxLinks = 40

// Realpath returns the absolute path of an existing file, with symbolic links
// resolved. What is at it is opened with root's rights, so the links on the way
// have to be root's, or ours: somebody else's, in a directory of theirs, may
// only lead to what is theirs as well, or it would give them any file of the
// host as a disk.
func Realpath(name string) (string, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	real, rest := "/", name
	var owners []uint32
	for links := 0; rest != ""; {
		var elem string
		elem, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		next := filepath.Join(real, elem) // "..": real has no links in it
		st, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if st.Mode().Type() != os.ModeSymlink {
			real = next
			continue
		}
		if links++; links > maxLinks {
			return "", &os.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		}
		to, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if uid := ownerOf(st); uid != 0 && uid != uint32(os.Geteuid()) {
			owners = append(owners, uid)
		}
		if filepath.IsAbs(to) {
			real = "/"
		}
		rest = to + "/" + rest
	}
	if err := checkLinks(real, owners); err != nil {
		return "", err
	}
	return real, nil
}

// checkLinks refuses file real if links of owners lead to it and it is not theirs.
func checkLinks(real string, owners []uint32) error {
	if len(owners) == 0 {
		return nil
	}
	st, err := os.Lstat(real)
	if err != nil {
		return err
	}
	for _, uid := range owners {
		if ownerOf(st) != uid {
			return fmt.Errorf("a symbolic link of user %d leads to a file that is not that user's", uid)
		}
	}
	return nil
}

func ownerOf(st os.FileInfo) uint32 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Uid
	}
	return 0
}
