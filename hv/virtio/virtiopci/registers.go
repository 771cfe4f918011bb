package virtiopci

import (
	"encoding/binary"

	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
)

// registers is the Function as the bus sees its register BAR. An access that no
// register answers, by offset or by size, reads zero and writes nothing.
type registers Function

func (r *registers) Read(off uint64, p []byte) {
	f := (*Function)(r)
	clear(p)
	if off == offISR {
		p[0] = f.takeISR()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch n := uint64(len(p)); {
	case off+n <= offCommon+sizeCommon:
		put(p, f.readCommon(off-offCommon, len(p)))
	case off >= offDevice && off+n <= offDevice+sizeDevice:
		f.dev.ReadConfig(off-offDevice, p)
	}
}

func (r *registers) Write(off uint64, p []byte) {
	f := (*Function)(r)
	if off >= offNotify {
		f.ring(off - offNotify)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch n := uint64(len(p)); {
	case off+n <= offCommon+sizeCommon:
		f.writeCommon(off-offCommon, len(p), get(p))
	case off >= offDevice && off+n <= offDevice+sizeDevice:
		f.dev.WriteConfig(off-offDevice, p)
	}
}

// ring is a doorbell that left the guest: its BAR was reached in a way that the
// machine's ioeventfds do not cover. Core.Doorbell is constant, so no lock.
func (f *Function) ring(off uint64) {
	if i := off / notifyStride; off%notifyStride == 0 && i < uint64(len(f.queueVec)) {
		f.core.Doorbell(int(i)).Ring()
	}
}

// get and put are little-endian integers of 1, 2, 4 or 8 bytes.
func get(p []byte) uint64 {
	var b [8]byte
	copy(b[:], p)
	return binary.LittleEndian.Uint64(b[:])
}

func put(p []byte, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	copy(p, b[:])
}

// at is an access of size bytes at off; registers are told apart by it, so that
// one of the wrong size matches none.
func at(off uint64, size int) uint64 { return off<<4 | uint64(size) }

func (f *Function) readCommon(off uint64, size int) uint64 {
	if off >= queueDesc && off < queueAddrEnd {
		return f.readQueueAddr(off, size)
	}
	switch at(off, size) {
	case at(devFeatureSelect, 4):
		return uint64(f.devSelect)
	case at(devFeature, 4), at(devFeature, 2):
		// iPXE had reads of 16 bits here until its commit 9e99a55b3 of 2019;
		// distributions still ship it. It gets the lower half.
		return half(f.core.Features(), f.devSelect)
	case at(drvFeatureSelect, 4):
		return uint64(f.drvSelect)
	case at(drvFeature, 4):
		return half(f.core.DriverFeatures(), f.drvSelect)
	case at(configVector, 2):
		return uint64(f.configVec.Load())
	case at(numQueues, 2):
		return uint64(f.core.Queues())
	case at(deviceStatus, 1):
		return uint64(f.core.Status())
	case at(configGeneration, 1):
		return uint64(f.core.Generation())
	case at(queueSelect, 2):
		return uint64(f.queue)
	}
	return f.readQueue(off, size)
}

// readQueue reads a register of the selected queue. One that does not exist has
// size 0 (virtio 1.3, 4.1.4.3.1).
func (f *Function) readQueue(off uint64, size int) uint64 {
	q := f.core.Queue(int(f.queue))
	if q == nil {
		return 0
	}
	switch at(off, size) {
	case at(queueSize, 2):
		return uint64(q.Size)
	case at(queueVector, 2):
		return uint64(f.queueVec[f.queue].Load())
	case at(queueEnable, 2):
		if q.Enabled {
			return 1
		}
	case at(queueNotifyOff, 2):
		return uint64(f.queue)
	}
	return 0
}

func (f *Function) writeCommon(off uint64, size int, v uint64) {
	if off >= queueDesc && off < queueAddrEnd {
		f.writeQueueAddr(off, size, v)
		return
	}
	switch at(off, size) {
	case at(devFeatureSelect, 4):
		f.devSelect = uint32(v)
	case at(drvFeatureSelect, 4):
		f.drvSelect = uint32(v)
	case at(drvFeature, 4):
		f.writeFeatures(v)
	case at(configVector, 2):
		f.configVec.Store(f.vector(v))
	case at(deviceStatus, 1):
		f.setStatus(uint8(v))
	case at(queueSelect, 2):
		f.queue = uint16(v)
	default:
		f.writeQueue(off, size, v)
	}
}

func (f *Function) writeQueue(off uint64, size int, v uint64) {
	q := f.core.Queue(int(f.queue))
	if q == nil {
		return
	}
	switch at(off, size) {
	case at(queueSize, 2):
		if !q.Enabled {
			q.Size = uint16(v)
		}
	case at(queueVector, 2):
		f.queueVec[f.queue].Store(f.vector(v))
	case at(queueEnable, 2):
		if v == 1 { // 0 is not a driver's to write; OpenBSD's does before a reset
			f.core.Enable(int(f.queue))
			f.syncBells()
		}
	}
}

// vector is what a vector register holds after v was written to it: NoVector
// where there is no such vector (virtio 1.3, 4.1.5.1.2.1).
func (f *Function) vector(v uint64) uint32 {
	if m := f.pci.MSIX(); m == nil || v >= uint64(m.Vectors()) {
		return pci.NoVector
	}
	return uint32(v)
}

// half is the 32 bits of v that sel selects: 0 for what does not exist.
func half(v uint64, sel uint32) uint64 {
	switch sel {
	case 0:
		return v & 0xffffffff
	case 1:
		return v >> 32
	}
	return 0
}

func (f *Function) writeFeatures(v uint64) {
	old := f.core.DriverFeatures()
	switch f.drvSelect {
	case 0:
		f.core.SetDriverFeatures(old&^0xffffffff | v)
	case 1:
		f.core.SetDriverFeatures(old&0xffffffff | v<<32)
	}
}

// queueAddr returns the address field that an access at off falls into, or nil.
func queueAddr(q *virtio.QueueConfig, off uint64) *mem.GPA {
	switch off &^ 7 {
	case queueDesc:
		return &q.Desc
	case queueDriver:
		return &q.Avail
	case queueDevice:
		return &q.Used
	}
	return nil
}

// readQueueAddr and writeQueueAddr take an address whole or in halves
// (virtio 1.3, 4.1.3.1).
func (f *Function) readQueueAddr(off uint64, size int) uint64 {
	q := f.core.Queue(int(f.queue))
	if q == nil {
		return 0
	}
	a := uint64(*queueAddr(q, off))
	switch {
	case size == 8 && off%8 == 0:
		return a
	case size == 4 && off%4 == 0:
		return half(a, uint32(off%8/4))
	}
	return 0
}

func (f *Function) writeQueueAddr(off uint64, size int, v uint64) {
	q := f.core.Queue(int(f.queue))
	if q == nil || q.Enabled {
		return
	}
	a := queueAddr(q, off)
	switch {
	case size == 8 && off%8 == 0:
		*a = mem.GPA(v)
	case size == 4 && off%8 == 0:
		*a = *a&^0xffffffff | mem.GPA(v)
	case size == 4 && off%8 == 4:
		*a = *a&0xffffffff | mem.GPA(v)<<32
	}
}
