package diskload

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aio has depth requests of Linux's own asynchronous I/O (io_submit(2)).
type aio struct {
	fd      int
	context uintptr
	blocks  [depth][64]byte // struct iocb
	list    [depth]*[64]byte
	events  [depth][32]byte // struct io_event
}

func newAIO(fd int) (*aio, error) {
	q := &aio{fd: fd}
	for k := range q.blocks {
		q.list[k] = &q.blocks[k]
	}
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, depth, uintptr(unsafe.Pointer(&q.context)), 0); e != 0 {
		return nil, fmt.Errorf("io_setup: %w", e)
	}
	return q, nil
}

// set makes request k. b must not move: it is mapped memory.
func (q *aio) set(k int, write bool, b []byte, off int64) {
	le, c := binary.LittleEndian, q.blocks[k][:]
	le.PutUint16(c[16:], 0) // IOCB_CMD_PREAD
	if write {
		le.PutUint16(c[16:], 1) // IOCB_CMD_PWRITE
	}
	le.PutUint32(c[20:], uint32(q.fd))
	le.PutUint64(c[24:], uint64(uintptr(unsafe.Pointer(&b[0]))))
	le.PutUint64(c[32:], uint64(len(b)))
	le.PutUint64(c[40:], uint64(off))
}

// run has all requests done.
func (q *aio) run() error {
	if n, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, q.context, depth, uintptr(unsafe.Pointer(&q.list))); e != 0 || n != depth {
		return fmt.Errorf("io_submit: %d of %d: %w", n, depth, e)
	}
	n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.context, depth, depth, uintptr(unsafe.Pointer(&q.events)), 0, 0)
	if e != 0 || n != depth {
		return fmt.Errorf("io_getevents: %d of %d: %w", n, depth, e)
	}
	for k := range q.events {
		if res := int64(binary.LittleEndian.Uint64(q.events[k][16:])); res != Block {
			return fmt.Errorf("request ended with %d", res)
		}
	}
	return nil
}
