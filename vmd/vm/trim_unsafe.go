package vm

import (
	"debug/elf"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trimProgram lets go of the pages of this program that were only needed to
// get here: what it runs from now on comes back from the page cache, which all
// VM processes share, page by page. Without it each process would seem, and
// count in its control group as, megabytes larger than it is.
//
// The segments are found as the runtime finds them, by the program headers
// that the kernel points out (AT_PHDR, getauxval(3)).
func trimProgram() error {
	auxv, err := unix.Auxv()
	if err != nil {
		return fmt.Errorf("read the auxiliary vector: %w", err)
	}
	var at, n uintptr
	for _, v := range auxv {
		switch v[0] {
		case atPHDR:
			at = v[1]
		case atPHNUM:
			n = v[1]
		}
	}
	if at == 0 {
		return errors.New("the kernel does not say where the program is")
	}
	headers := unsafe.Slice((*elf.Prog64)(pointer(at)), n)
	var bias uintptr // of a program that may lie anywhere
	for i := range headers {
		h := &headers[i]
		if elf.ProgType(h.Type) == elf.PT_PHDR {
			bias = at - uintptr(h.Vaddr)
		}
		if elf.ProgType(h.Type) != elf.PT_LOAD || elf.ProgFlag(h.Flags)&elf.PF_W != 0 {
			continue // what was written to would be lost
		}
		start := (bias + uintptr(h.Vaddr)) &^ 4095
		size := (bias + uintptr(h.Vaddr) + uintptr(h.Memsz) - start) &^ 4095
		if err := unix.Madvise(unsafe.Slice((*byte)(pointer(start)), size), unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("let go of the program's pages at %#x: %w", start, err)
		}
	}
	return nil
}

// Entries of the auxiliary vector (linux/auxvec.h).
const (
	atPHDR  = 3
	atPHNUM = 5
)

// pointer makes a pointer of an address that the kernel chose: nothing there
// is Go's to move or free.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }
