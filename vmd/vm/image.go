package vm

import (
	"fmt"
	"os"
	"strconv"

	"vmd/hv/disk"
	"vmd/hv/disk/qcow2"
	"vmd/internal/vmop"
)

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
