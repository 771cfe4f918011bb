package boot

import (
	"fmt"
	"strings"

	"vmd/hv/mem"
)

// putCmdline writes the command line, NUL-terminated. limit is the longest that
// the kernel takes.
func (l *loader) putCmdline(limit uint64) error {
	if err := l.checkCmdline(limit); err != nil {
		return err
	}
	return l.put(cmdlineAddr, append([]byte(l.Cmdline), 0))
}

func (l *loader) checkCmdline(limit uint64) error {
	limit = min(limit, cmdlineMax)
	if uint64(len(l.Cmdline)) > limit {
		return fmt.Errorf("cmdline: %d bytes, the kernel takes %d", len(l.Cmdline), limit)
	}
	if strings.IndexByte(l.Cmdline, 0) >= 0 {
		return fmt.Errorf("cmdline: contains a NUL byte")
	}
	return nil
}

// putInitrd reads the initrd to the highest place below limit that does not
// reach down to floor, the end of the kernel. Both results are 0 without an
// initrd.
func (l *loader) putInitrd(floor, limit mem.GPA) (at mem.GPA, size uint64, err error) {
	if l.Initrd == nil || l.Initrd.Size == 0 {
		return 0, 0, nil
	}
	size = uint64(l.Initrd.Size)
	limit = alignDown(min(limit, l.tolud), pageSize)
	if size > uint64(limit) || alignDown(limit-mem.GPA(size), pageSize) < floor {
		return 0, 0, fmt.Errorf("initrd: %d MiB do not fit between the kernel's end at %d MiB and %d MiB: %w",
			mib(size), mib(uint64(floor)), uint64(limit)>>20, ErrMemory)
	}
	at = alignDown(limit-mem.GPA(size), pageSize)
	if err := l.readInto(at, *l.Initrd, 0, size); err != nil {
		return 0, 0, fmt.Errorf("initrd: %w", err)
	}
	return at, size, nil
}
