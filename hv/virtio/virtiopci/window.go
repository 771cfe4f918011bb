package virtiopci

import "encoding/binary"

// The PCI_CFG capability is a window onto the register BAR for firmware that
// cannot reach it where it is (virtio 1.3, 4.1.4.9): an access of its data
// field is an access of the BAR.

// window returns what the guest has pointed the window at, if it is an access
// that the BAR could see.
func (f *Function) window() (off uint64, n int, ok bool) {
	var c [windowData]byte
	f.pci.Register(capWindow, c[:])
	o := binary.LittleEndian.Uint32(c[windowOffset:])
	size := binary.LittleEndian.Uint32(c[windowLength:])
	switch size {
	case 1, 2, 4:
	default:
		return 0, 0, false
	}
	ok = c[windowBAR] == regsBAR && o%size == 0 && o <= regsSize-size
	return uint64(o), int(size), ok
}

// inWindow says whether an access of n registers at off starts in the data
// field, whole: one that lies across its edge is no driver's.
func inWindow(off, n int) bool {
	return off >= capWindow+windowData && off+n <= capWindow+windowData+4
}

func (f *Function) readWindow(off int, p []byte) {
	if !inWindow(off, len(p)) {
		return
	}
	o, n, ok := f.window()
	if !ok {
		return
	}
	var b [4]byte
	(*registers)(f).Read(o, b[:n])
	copy(p, b[off-capWindow-windowData:])
}

func (f *Function) writeWindow(off int, p []byte) {
	if !inWindow(off, len(p)) {
		return
	}
	if o, n, ok := f.window(); ok {
		var b [4]byte
		f.pci.Register(capWindow+windowData, b[:])
		(*registers)(f).Write(o, b[:n])
	}
}
