package virtio

import "unsafe"

// words32 is b seen as host-order 32-bit words, for atomic access to what the
// guest accesses at the same time; nil if b does not start or end on a word.
func words32(b []byte) []uint32 {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if len(b) == 0 || len(b)%4 != 0 || uintptr(p)%4 != 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(p), len(b)/4)
}

// words16 is b, which words32 has accepted, as 16-bit words.
func words16(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}
