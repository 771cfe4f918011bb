package parent

import (
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"vmd/vmd/config"
)

// rawDisks are the disks, by path, whose format vm.conf leaves open and that
// were raw when they were first seen. A guest can write what it likes into a raw
// disk, also the header of a qcow2 image that names a file of the host's as its
// base: so what was raw stays raw, until another file has its path. The map is
// never changed, only replaced: openers read it beside the loop.
type rawDisks map[string]fileID

// fileID tells a file from every other that had its path, or its inode, before.
// The number of its device is no part of it: that may change with each boot.
type fileID struct {
	Inode uint64
	Birth int64 // ns; 0 where the file system does not say
}

func (r rawDisks) has(path string, id fileID) bool {
	was, ok := r[path]
	return ok && was == id
}

// identify is the identity of an open file (statx(2)); zero if there is none.
func identify(f *os.File) fileID {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return fileID{}
	}
	id := fileID{Inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id
}

// rememberRaw takes note of raw disks among found, and forgets those that vm.conf
// no longer has.
func (p *parent) rememberRaw(found map[string]image) {
	next := rawDisks{}
	for i := range p.cfg.VMs {
		for _, d := range p.cfg.VMs[i].Disks {
			if d.Format != config.FormatAuto {
				continue
			}
			if id, ok := p.raw[d.Path]; ok {
				next[d.Path] = id
			}
			if im, ok := found[d.Path]; ok && im.format == "raw" {
				next[d.Path] = im.id
			}
		}
	}
	if !maps.Equal(p.raw, next) {
		p.raw = next
		p.saveSoon()
	}
}
