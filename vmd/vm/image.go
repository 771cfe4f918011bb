package vm

import (
	"fmt"
	"os"
	"strconv"

	"vmd/hv/disk"
	"vmd/hv/disk/qcow2"
	"vmd/internal/vmop"
)

// openDrives opens the guest's disks, unless they are open.
func (v *vm) openDrives() error {
	for i := len(v.drives); i < len(v.spec.Disks); i++ {
		d, err := v.openDrive(i)
		if err != nil {
			return &coded{vmop.ErrDisk, fmt.Errorf("disk %d: %w", i, err)}
		}
		v.drives = append(v.drives, d)
	}
	return nil
}

// openDrive opens disk i. One that is received must be as long as it was, and is
// locked later, unless it was made for the guest.
func (v *vm) openDrive(i int) (*drive, error) {
	arg, guest := v.spec.Disks[i], v.spec.Receive
	name := "disk" + strconv.Itoa(i)
	file := v.files[name]
	img, err := v.openImage(name, arg)
	if err != nil {
		return nil, err
	}
	if guest != nil && img.Size() != guest.Disks[i].Size {
		err = fmt.Errorf("it has %d bytes, and the guest's has %d", img.Size(), guest.Disks[i].Size)
		img.Close()
		return nil, err
	}
	return &drive{
		image: disk.Track(img), file: file, format: arg.Format, serial: arg.Serial,
		readOnly: arg.ReadOnly, locked: guest == nil || guest.WithDisks,
	}, nil
}

// openImage makes a disk of the descriptor called name and, if it has bases,
// name.1 and so on.
func (v *vm) openImage(name string, d vmop.DiskArg) (disk.Image, error) {
	var files []*os.File
	for i := range d.Files {
		n := name
		if i > 0 {
			n = name + "." + strconv.Itoa(i)
		}
		f, err := v.files.need(n)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	switch {
	case d.Format == "qcow2":
		return qcow2.OpenChain(files, d.ReadOnly)
	case d.Format == "raw" && len(files) == 1:
		return disk.NewRaw(files[0], d.ReadOnly)
	}
	return nil, fmt.Errorf("format %q in %d files", d.Format, len(files))
}
