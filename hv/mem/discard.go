package mem

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// hostPage is what the host gives and takes.
var hostPage = uint64(os.Getpagesize())

// Discard gives the whole host pages of [gpa, gpa+n) back to the host; they read
// as zero when they are next touched. The range must lie in one region. A large
// page of which only a part is discarded is split, which the host does when it
// needs the rest.
func (m *Memory) Discard(gpa GPA, n uint64) error {
	b, err := m.Slice(gpa, n)
	if err != nil {
		return err
	}
	err = Release(b)
	m.Touched(gpa, n)
	return err
}

// Release is Discard for bytes that Slice has handed out, but does not mark
// them as touched.
func Release(b []byte) error {
	skip := -uint64(address(b)) % hostPage
	if uint64(len(b)) < skip+hostPage {
		return nil // no whole page
	}
	b = b[skip:]
	b = b[:uint64(len(b))&^(hostPage-1)]
	for {
		err := unix.Madvise(b, unix.MADV_DONTNEED)
		switch err {
		case nil:
			return nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("give %d bytes of guest memory back: %w", len(b), err)
		}
	}
}

// residentStep is how many pages Resident asks the kernel about at a time.
const residentStep = 16 << 10

// Resident is how many bytes of the guest's memory the host has given it and
// not taken back or swapped out. It looks at every page, so it is not for the
// data path.
func (m *Memory) Resident() (uint64, error) {
	vec := make([]byte, residentStep)
	var n uint64
	for i := range m.regions {
		for b := m.regions[i].Bytes; len(b) > 0; {
			piece := b[:min(uint64(len(b)), residentStep*hostPage)]
			b = b[len(piece):]
			k, err := resident(piece, vec)
			if err != nil {
				return 0, fmt.Errorf("look which guest memory is in use: %w", err)
			}
			n += uint64(k) * hostPage
		}
	}
	return n, nil
}
