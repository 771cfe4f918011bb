package parent

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"vmd/hv/disk/qcow2"
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// image is what can be told of a disk from outside.
type image struct {
	format     string // "raw", "qcow2", "block"
	size, used int64  // bytes; -1 where unknown
	dev        uint64 // of the file system, or the device itself
	id         fileID
}

// inspect looks at an open image. want is what its definition says.
func inspect(f *os.File, want config.Format) (image, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return image{}, err
	}
	im := image{format: "raw", size: st.Size, used: st.Blocks * 512, dev: st.Dev, id: identify(f)}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		n, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return image{}, err
		}
		im.format, im.size, im.used, im.dev = "block", n, n, st.Rdev
	}
	head := make([]byte, 32)
	n, _ := f.ReadAt(head, 0)
	found := n >= 4 && qcow2.Detect(head[:n])
	switch {
	case want == config.FormatQcow2 && !found:
		return image{}, errors.New("it is no qcow2 image")
	case want == config.FormatQcow2, want == config.FormatAuto && found && im.format == "raw":
		h, err := qcow2.Info(f, st.Size)
		if err != nil {
			return image{}, err
		}
		im.format, im.size = "qcow2", h.Size
	}
	return im, nil
}

// parameter is the word that a VM process knows a format by.
func (im *image) parameter() string {
	if im.format == "block" {
		return "raw"
	}
	return im.format
}

// imageHeader reads the header of the qcow2 image in f.
func imageHeader(f *os.File) (qcow2.Header, error) {
	st, err := f.Stat()
	if err != nil {
		return qcow2.Header{}, err
	}
	size := st.Size()
	if st.Mode().Type() == fs.ModeDevice {
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return qcow2.Header{}, err
		}
	}
	return qcow2.Info(f, size)
}

func (p *parent) decorate(v *vmop.VM) {
	r := p.runs[v.ID]
	for i := range v.Disks {
		d := &v.Disks[i]
		im, ok := image{}, false
		if r != nil {
			im, ok = r.images[d.Path]
		}
		if !ok {
			im, ok = p.images[d.Path]
		}
		if ok {
			d.Size, d.Used = im.size, im.used
			if d.Format == "" || im.format == "block" {
				d.Format = im.format
			}
		}
	}
}

// lookAtImages finds out how large the disks of vms are, beside the loop: they
// may lie on a server that does not answer.
func (p *parent) lookAtImages(vms []config.VM) {
	want := map[string]config.Format{}
	for i := range vms {
		for _, d := range vms[i].Disks {
			want[d.Path] = d.Format
		}
		if c := vms[i].CDROM; c != "" {
			want[c] = config.FormatRaw
		}
	}
	go func() {
		found := map[string]image{}
		look := cdromFile // no lock, and any type that a disk can have
		for path, format := range want {
			f, err := look.open(path)
			if err != nil {
				continue
			}
			if im, err := inspect(f, format); err == nil {
				found[path] = im
			}
			f.Close()
		}
		p.loop.Post(func() { p.foundImages(found) })
	}()
}

// foundImages takes note of sizes, and publishes the VMs that have got others.
func (p *parent) foundImages(found map[string]image) {
	p.rememberRaw(found)
	news := map[string]bool{}
	for path, im := range found {
		if p.images[path] != im {
			p.images[path], news[path] = im, true
		}
	}
	if len(news) == 0 {
		return
	}
	for _, v := range p.reg.All() {
		for _, d := range v.Disks {
			if news[d.Path] {
				p.put(v)
				break
			}
		}
	}
}
