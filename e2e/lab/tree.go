package lab

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// copyFile copies a file of the host, or the one that its links lead to.
// A path below /bin, /sbin or /lib lands below /usr.
func (t *tree) copyFile(from, to string) {
	t.do(func() error {
		first, _, _ := strings.Cut(strings.TrimPrefix(to, "/"), "/")
		switch first {
		case "bin", "sbin", "lib", "lib64":
			to = "/usr" + to
		}
		if _, err := os.Stat(t.path(to)); err == nil {
			return nil
		}
		return copyFile(from, t.path(to))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fi.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// copyTree copies the files below a folder of the host; one that is not
// there is left out.
func (t *tree) copyTree(from, to string) {
	t.do(func() error {
		if _, err := os.Stat(from); os.IsNotExist(err) {
			return nil
		}
		return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			fi, err := os.Stat(path) // follows links: ROMs are links
			if err != nil || !fi.Mode().IsRegular() {
				return nil // leads nowhere: as on the host
			}
			rel, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			t.copyFile(path, filepath.Join(to, rel))
			return t.err
		})
	})
}

// sizeKiB is the size for a file system that holds the tree.
func (t *tree) sizeKiB() (int64, error) {
	var kib int64
	err := filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		kib += (fi.Size()+4095)/4096*4 + 1 // blocks of 4 KiB, and an inode
		return nil
	})
	return kib + kib/16 + 16<<10, err
}
