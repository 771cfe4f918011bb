package parent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vmd/hv/disk/qcow2"
	"vmd/internal/vmop"
)

// baseFile is an image that others are based on: only read, by any number of
// VMs, while none may write to it.
var baseFile = kind{what: "base image", code: vmop.ErrDisk, share: true, block: true}

// openBases opens the images below the one in top, whose path is path, in
// order. What an image names as its base is the word of whoever last wrote the
// image, a VM process that a guest has taken over perhaps; so a base is opened
// only if it lies beside the image, or if everybody may read it anyway.
func openBases(top *os.File, path string) (bases []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(bases)
			bases = nil
		}
	}()
	for f := top; ; f = bases[len(bases)-1] {
		h, err := imageHeader(f)
		if err != nil {
			return bases, &coded{vmop.ErrDisk, fmt.Errorf("disk %q: %w", path, err)}
		}
		if h.BackingName == "" {
			return bases, nil
		}
		if len(bases)+1 == qcow2.MaxChain {
			return bases, code(vmop.ErrDisk, "disk %q: more than %d images in a chain", path, qcow2.MaxChain)
		}
		base, real, err := openBase(h.BackingName, path)
		if err != nil {
			return bases, err
		}
		bases = append(bases, base)
		if h.BackingFormat == "raw" {
			return bases, nil
		}
		path = real
	}
}

// openBase opens the image that the one at path names as its base.
func openBase(name, path string) (*os.File, string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return nil, "", &coded{vmop.ErrDisk, fmt.Errorf("disk %q: %w", path, err)}
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, "", &coded{vmop.ErrDisk, fmt.Errorf("base image of disk %q: %w", path, err)}
	}
	f, err := baseFile.open(real)
	if err != nil {
		return nil, "", err
	}
	st, err := f.Stat()
	if err == nil && filepath.Dir(real) != dir && st.Mode().Perm()&0o004 == 0 {
		err = errors.New("neither beside the image nor readable by everybody")
	}
	if err != nil {
		f.Close()
		return nil, "", &coded{vmop.ErrDisk, fmt.Errorf("base image %q of disk %q: %w", real, path, err)}
	}
	return f, real, nil
}
