package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// QEMU's VMRUN delivers the interrupt that it is told to inject, and leaves the
// vector in exception_index, as if it were yet to be delivered
// (target/i386/tcg/sysemu/svm_helper.c, helper_vmrun, SVM_EVTINJ_TYPE_INTR; 7.2
// and later). The next exit from the guest writes something else there. But
// if the emulator returns to its main loop before, as it does with -icount
// whenever a timer is due, it takes the vector for an exception: the guest has
// its interrupt a second time, enabled or not. Linux then waits for ever for
// the lock of handle_edge_irq, which it holds; and as each PAUSE is a round of
// the main loop, virtual time as good as stands still.
//
// No option is of help, so the store is taken out of the running QEMU.

// injector is the function whose call follows the store. QEMU exports it for
// its modules.
const injector = "do_interrupt_x86_hardirq"

// storeSize is the length of the store, a mov of 32 bits with a displacement of
// 32; storeNop is as long (AMD64 Architecture Programmer's Manual, volume 3, NOP).
const storeSize = 6

var storeNop = []byte{0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00}

var errNoStore = errors.New("no store of an injected vector is recognized")

// mend takes the store out of the process pid, which runs program and has just
// been started.
func mend(pid int, program string) error {
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	addr, store, err := strayStore(program)
	if err != nil {
		return err
	}
	base, err := loadedAt(pid, program)
	if err != nil {
		return err
	}
	m, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer m.Close()
	there := make([]byte, storeSize)
	if _, err := m.ReadAt(there, int64(base+addr)); err != nil {
		return err
	}
	if !bytes.Equal(there, store) {
		return fmt.Errorf("%w in memory", errNoStore)
	}
	_, err = m.WriteAt(storeNop, int64(base+addr))
	return err
}

// strayStore returns where in a program the store is, and its bytes.
func strayStore(program string) (addr uint64, store []byte, err error) {
	f, err := elf.Open(program)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	text := f.Section(".text")
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_DYN || text == nil {
		return 0, nil, errNoStore
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return 0, nil, err
	}
	code, err := text.Data()
	if err != nil {
		return 0, nil, err
	}
	for _, s := range symbols {
		if s.Name == injector {
			i, ok := findStore(code, int(s.Value)-int(text.Addr))
			if !ok {
				return 0, nil, errNoStore
			}
			return text.Addr + uint64(i), code[i : i+storeSize], nil
		}
	}
	return 0, nil, fmt.Errorf("%w: it has no %s", errNoStore, injector)
}

// findStore looks at what stands before each call of the function at target
// for
//
//	mov  %esi, -n(%r)      exception_index = vector; a CPUState lies below its env
//	movq $-1, m(%r)        exception_next_eip = -1
//	mov  $1, %edx          is_hw
//
// and reports whether this is there exactly once.
func findStore(code []byte, target int) (at int, ok bool) {
	const window = 64
	found := 0
	for i := range max(0, len(code)-4) {
		if code[i] != 0xe8 || i+5+int(int32(binary.LittleEndian.Uint32(code[i+1:]))) != target {
			continue
		}
		before := code[max(0, i-window):i]
		next := bytes.LastIndex(before, []byte{0xff, 0xff, 0xff, 0xff})
		if next < 7 || !bytes.Contains(before, []byte{0xba, 1, 0, 0, 0}) {
			continue
		}
		base := before[next-5] & 7
		if before[next-7] != 0x48 || before[next-6] != 0xc7 || before[next-5] != 0x80|base {
			continue
		}
		for j := 0; j+storeSize <= next-7; j++ {
			if before[j] == 0x89 && before[j+1] == 0xb0|base && before[j+5] == 0xff {
				at = i - len(before) + j
				found++
			}
		}
	}
	return at, found == 1
}

// loadedAt returns where the first page of a program is in a process's memory.
func loadedAt(pid int, program string) (uint64, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytesLines(maps) {
		// proc(5): address perms offset dev inode pathname
		f := strings.Fields(line)
		if len(f) == 6 && f[2] == "00000000" && f[5] == program {
			first, _, _ := strings.Cut(f[0], "-")
			return strconv.ParseUint(first, 16, 64)
		}
	}
	return 0, fmt.Errorf("process %d has no %s in its memory", pid, program)
}
