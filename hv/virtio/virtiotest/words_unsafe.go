package virtiotest

import "unsafe"

// words is b, four bytes at an aligned address, as a word for atomic access.
func words(b []byte) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
