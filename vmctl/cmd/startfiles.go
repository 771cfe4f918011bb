package cmd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
)

// startFiles are the files that go with a request: opened here, so that the
// kernel decides whether the caller may.
type startFiles struct {
	names    []string
	files    []*os.File
	warnings []string
}

// openFlags are what a file is opened with that somebody else has named: a
// FIFO must not block and a terminal must not become ours.
func openFlags(mode int) int { return mode | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC }

// open opens what o names and puts the paths into def.
func (s *startFiles) open(o *startOptions, def *vmop.Definition) error {
	var err error
	if o.kernel != "" {
		if def.Kernel, err = s.image("kernel", "boot image", "kernel", o.kernel); err != nil {
			return err
		}
	}
	if o.initrd != "" {
		if def.Initrd, err = s.image("initrd", "initrd", "initrd", o.initrd); err != nil {
			return err
		}
	}
	if o.cdrom != "" {
		if def.CDROM, err = s.cdrom(o.cdrom); err != nil {
			return err
		}
	}
	for i, arg := range o.disks {
		d, err := s.disk(i, arg)
		if err != nil {
			return err
		}
		def.Disks = append(def.Disks, d)
	}
	return nil
}

// image opens a kernel or an initrd.
func (s *startFiles) image(file, option, what, arg string) (string, error) {
	path, err := absolute(arg)
	if err != nil {
		return "", failf("invalid %s path: %s", option, strerror(err))
	}
	if len(path) > maxPath {
		return "", failf("%s name too long", what)
	}
	f, err := os.OpenFile(path, openFlags(os.O_RDONLY), 0)
	if err != nil {
		return "", failf("cannot open %s '%s': %s", what, path, strerror(err))
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return "", failf("%s must be a regular file", what)
	}
	s.add(file, f)
	return path, nil
}

func (s *startFiles) cdrom(arg string) (string, error) {
	path, err := absolute(arg)
	if err != nil {
		return "", failf("invalid iso image path: %s: %s", arg, strerror(err))
	}
	if len(path) > maxPath {
		return "", failf("cdrom name too long")
	}
	f, err := os.OpenFile(path, openFlags(os.O_RDONLY), 0)
	if err != nil {
		return "", failf("could not find specified iso image: %s: %s", path, strerror(err))
	}
	s.add("cdrom", f)
	return path, nil
}

func (s *startFiles) disk(i int, arg string) (vmop.DiskDef, error) {
	name, format, guessed := diskFormat(arg)
	path, err := absolute(name)
	if err != nil {
		return vmop.DiskDef{}, failf("invalid disk path: %s: %s", name, strerror(err))
	}
	if len(path) > maxPath {
		return vmop.DiskDef{}, failf("disk path too long")
	}
	f, err := os.OpenFile(path, openFlags(os.O_RDWR), 0)
	if err != nil {
		return vmop.DiskDef{}, failf("could not open disk image(s): %s: %s", path, strerror(err))
	}
	if guessed {
		s.warnings = append(s.warnings, fmt.Sprintf("disk %s taken for qcow2 by its first bytes, which a guest may have written: "+
			"say qcow2:%s or raw:%s", name, name, name))
	}
	s.add(fmt.Sprintf("disk%d", i), f)
	return vmop.DiskDef{Path: path, Format: format}, nil
}

func (s *startFiles) add(name string, f *os.File) {
	s.names = append(s.names, name)
	s.files = append(s.files, f)
}

// take hands the files over.
func (s *startFiles) take() []*os.File {
	f := s.files
	s.files = nil
	return f
}

func (s *startFiles) close() {
	for _, f := range s.files {
		f.Close()
	}
}
