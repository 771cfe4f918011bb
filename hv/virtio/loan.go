package virtio

import (
	"errors"

	"vmd/hv/mem"
)

// Loan is a queue in the hands of the kernel, which serves it in place of a
// Worker (vhost): what it needs to find the rings and to be heard.
type Loan struct {
	Size uint16
	// Next is the entry of both rings to go on with.
	Next uint16
	// Desc, Avail and Used are the three parts, in guest memory.
	Desc, Avail, Used []byte
	Memory            *mem.Memory
	// Kick is the eventfd that the guest rings. It is readable for ever once
	// it has been rung, for the kernel takes no count from it.
	Kick int
	// Call is the eventfd that interrupts the guest.
	Call int
}

var errNoCall = errors.New("its interrupts do not go through an eventfd")

// Direct is a Notifier whose interrupts somebody else can send: QueueFD is the
// eventfd for those of queue i, or -1 where that is not possible now.
type Direct interface {
	QueueFD(i int) int
}

// Lend describes a queue that has no Worker, and will have none before Reclaim or
// the next reset of the device. It fails where the guest's interrupts need us.
func (q *Queue) Lend() (Loan, error) {
	l := Loan{Size: q.size, Next: q.lastAvail, Desc: q.table, Memory: q.mem, Kick: q.bell.fd, Call: -1}
	if d, ok := q.notify.(Direct); ok {
		l.Call = d.QueueFD(q.index)
	}
	if l.Call < 0 {
		return Loan{}, errNoCall
	}
	var err error
	if l.Avail, err = q.mem.Slice(q.at[0], availSize(q.size)); err != nil {
		return Loan{}, err
	}
	if l.Used, err = q.mem.Slice(q.at[1], usedSize(q.size)); err != nil {
		return Loan{}, err
	}
	return l, q.bell.forget()
}

// Ring has the kernel look at the queue.
func (q *Queue) Ring() { q.bell.Ring() }

// Reclaim says how far a queue that was lent has come: next is the entry of both
// rings to go on with. The kernel must not be serving it.
func (q *Queue) Reclaim(next uint16) {
	q.lastAvail, q.availIdx, q.usedIdx, q.published = next, next, next, next
}
