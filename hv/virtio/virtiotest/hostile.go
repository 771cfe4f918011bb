package virtiotest

import (
	"strings"
	"testing"
	"time"

	"vmd/hv/mem"
	"vmd/hv/virtio"
	"vmd/hv/virtio/virtiopci"
)

// hostileRAM is the memory of a hostile guest. Behind it, and before it, an
// access of ours is a crash.
const hostileRAM = 4 << 20

// Victim is a device that Attack has a hostile guest for.
type Victim struct {
	Slot    int
	Options virtiopci.Options // of the function; Warn is Attack's
	New     func(t testing.TB, h *Host) virtio.Device
	// Legacy attacks through the legacy interface.
	Legacy bool
	// Idle says that the device does not look into queue i until something
	// happens outside: what is wrong there need not be noticed.
	Idle func(i int) bool
}

// Attack runs everything that a guest can do wrong against the device, each on
// a fresh one. The device may refuse, and may ask to be reset; it must not
// panic, nor touch memory outside the guest's, and after a reset it must be as
// good as new. Have goleak in TestMain.
func (v Victim) Attack(t *testing.T) {
	for _, a := range queueAttacks {
		t.Run(a.name, func(t *testing.T) {
			for i := range v.queues(t) {
				f := v.fresh(t)
				a.do(f, f.qs[i])
				f.qs[i].Ring()
				if a.fatal && (v.Idle == nil || !v.Idle(i)) {
					f.needsReset(i)
				}
				f.move()
				f.recover()
			}
		})
	}
	t.Run("states that were edited", v.edited)
	for _, a := range deviceAttacks {
		t.Run(a.name, func(t *testing.T) {
			f := v.fresh(t)
			a.do(f)
			f.move()
			f.recover()
		})
	}
}

// queues is how many queues the device has.
func (v Victim) queues(t *testing.T) int {
	return len(v.New(t, NewHost(t, hostileRAM)).QueueSizes())
}

// fight is one device and the guest that is after it.
type fight struct {
	*Driver
	t  *testing.T
	v  Victim
	fn *virtiopci.Function
	qs []*Queue

	warns chan struct{} // one for each time that the device gave up
}

func (v Victim) fresh(t *testing.T) *fight {
	t.Helper()
	h, f := NewHost(t, hostileRAM), &fight{t: t, v: v, warns: make(chan struct{}, 1000)}
	o := v.Options
	o.Warn = f.warned
	f.fn = h.PlugWith(v.Slot, v.New(t, h), o)
	if v.Legacy {
		f.Driver = NewLegacy(h, v.Slot)
	} else {
		f.Driver = NewDriver(h, v.Slot)
	}
	f.start()
	return f
}

// warned hears why the device gave up. That it is our own fault must not happen.
func (f *fight) warned(err error) {
	select {
	case f.warns <- struct{}{}:
	default:
	}
	if strings.Contains(err.Error(), "panic") {
		f.t.Errorf("%v", err)
	}
}

// start brings the device and all its queues up.
func (f *fight) start() {
	f.t.Helper()
	f.Init(f.Offered() & (virtio.VIRTIO_RING_F_INDIRECT_DESC | 1<<24 - 1))
	f.qs = f.qs[:0]
	for i, max := range f.fn.Device().QueueSizes() {
		f.qs = append(f.qs, f.Queue(i, min(max, 16)))
	}
	f.Start()
}

// move takes the guest to another machine with a device like this one. Whatever
// state a guest has brought its device into, it must be able to go on with.
func (f *fight) move() {
	f.t.Helper()
	h := f.Host.Twin()
	o := f.v.Options
	o.Warn = f.warned
	f.fn = f.Move(f.fn, h, f.v.New(f.t, h), o, f.qs...)
}

// needsReset waits until the device has given up.
func (f *fight) needsReset(queue int) {
	f.t.Helper()
	f.WaitConfig()
	if s := f.Status(); s&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
		f.t.Errorf("queue %d: status %#x, want it to need a reset", queue, s)
	}
	select {
	case <-f.warns: // comes after the interrupt
	case <-time.After(patience * time.Millisecond):
		f.t.Errorf("queue %d: no warning", queue)
	}
	if n := len(f.warns); n != 0 {
		f.t.Errorf("queue %d: %d warnings too many", queue, n)
	}
}

// recover checks that the device is as good as new after a reset: of its
// function, for its BARs may be anywhere, then of the device.
func (f *fight) recover() {
	f.t.Helper()
	f.Host.PCI.Reset()
	if err := f.Host.PCI.Assign(); err != nil {
		f.t.Fatal(err)
	}
	f.Host.free = RAMBase
	f.start()
	if s := f.Status(); s&(virtio.VIRTIO_CONFIG_S_NEEDS_RESET|virtio.VIRTIO_CONFIG_S_DRIVER_OK) != virtio.VIRTIO_CONFIG_S_DRIVER_OK {
		f.t.Errorf("status %#x after a reset and a new start", s)
	}
	f.SetStatus(0)
	if s := f.Status(); s != 0 {
		f.t.Errorf("status %#x after a reset", s)
	}
}

// queueAttack is something wrong with one queue. It is fatal if the device must
// notice.
type queueAttack struct {
	name  string
	fatal bool
	do    func(f *fight, q *Queue)
}

const (
	next     = virtio.VIRTQ_DESC_F_NEXT
	write    = virtio.VIRTQ_DESC_F_WRITE
	indirect = virtio.VIRTQ_DESC_F_INDIRECT
)

// one makes an attack of a single descriptor.
func oneDesc(name string, fatal bool, gpa mem.GPA, n uint32, flags uint16) queueAttack {
	return queueAttack{name, fatal, func(_ *fight, q *Queue) {
		q.PutDesc(0, gpa, n, flags, 0)
		q.Post(0)
	}}
}

// ramEnd is the first address behind the guest's memory.
const ramEnd = RAMBase + hostileRAM

var queueAttacks = []queueAttack{
	oneDesc("a chain that is its own end", true, RAMBase, 1, next),
	{"a loop of all descriptors", true, func(_ *fight, q *Queue) {
		for i := range q.size {
			q.PutDesc(i, RAMBase, 64, next|write, (i+1)%q.size)
		}
		q.Post(0)
	}},
	{"a head outside the table", true, func(_ *fight, q *Queue) { q.Post(q.size) }},
	{"a head far outside the table", true, func(_ *fight, q *Queue) { q.Post(0xffff) }},
	{"a next outside the table", true, func(_ *fight, q *Queue) {
		q.PutDesc(0, RAMBase, 64, next, q.size)
		q.Post(0)
	}},
	{"an index too far ahead", true, func(_ *fight, q *Queue) { q.SetAvail(q.size + 1) }},
	{"an index that goes back", true, func(_ *fight, q *Queue) { q.SetAvail(0xffff) }},
	oneDesc("read from address 0", true, 0, 64, 0),
	oneDesc("write to address 0", true, 0, 64, write),
	oneDesc("read beyond the end", true, ramEnd-1, 2, 0),
	oneDesc("write beyond the end", true, ramEnd-1, 2, write),
	oneDesc("write before the start", true, RAMBase-1, 64, write),
	oneDesc("an address that wraps", true, 1<<64-1, 64, write),
	oneDesc("an address that wraps into memory", true, 1<<64-64, uint32(RAMBase)+128, write),
	oneDesc("4 GiB", true, RAMBase, 0xffffffff, write),
	oneDesc("registers as memory", true, 0xe0000000, 4096, write),
	{"writable before readable", true, func(_ *fight, q *Queue) {
		q.PutDesc(0, RAMBase, 64, next|write, 1)
		q.PutDesc(1, RAMBase, 64, 0, 0)
		q.Post(0)
	}},
	oneDesc("an empty indirect table", true, RAMBase, 0, indirect),
	oneDesc("an indirect table that is cut off", true, RAMBase, 24, indirect),
	oneDesc("an indirect table outside memory", true, ramEnd, 16, indirect),
	oneDesc("an indirect table of 256 MiB", true, RAMBase, 1<<28, indirect),
	oneDesc("an indirect table with a next", true, RAMBase, 16, indirect|next),
	{"an indirect table in an indirect table", true, func(f *fight, q *Queue) {
		at := f.Host.Alloc(16)
		putDesc(f.Host.Bytes(at, 16), at, 16, indirect, 0)
		q.PutDesc(0, at, 16, indirect, 0)
		q.Post(0)
	}},
	{"a loop in an indirect table", true, func(f *fight, q *Queue) {
		at := f.Host.Alloc(32)
		putDesc(f.Host.Bytes(at, 16), RAMBase, 8, next, 1)
		putDesc(f.Host.Bytes(at+16, 16), RAMBase, 8, next, 0)
		q.PutDesc(0, at, 32, indirect, 0)
		q.Post(0)
	}},

	oneDesc("nothing at all", false, RAMBase, 0, 0),
	oneDesc("nothing to write", false, ramEnd-1, 0, write),
	oneDesc("one byte to read", false, ramEnd-1, 1, 0),
	oneDesc("one byte to write", false, ramEnd-1, 1, write),
	oneDesc("all memory to read", false, RAMBase, hostileRAM, 0),
	{"pieces of one byte", false, func(f *fight, q *Queue) {
		at := f.Host.Alloc(64)
		for i := range q.size {
			flags := uint16(next)
			if i > q.size/2 {
				flags |= write
			}
			if i == q.size-1 {
				flags &^= next
			}
			q.PutDesc(i, at+mem.GPA(i), 1, flags, i+1)
		}
		q.Post(0)
	}},
	{"the same chain again and again", false, func(f *fight, q *Queue) {
		q.PutDesc(0, f.Host.Alloc(64), 32, next, 1)
		q.PutDesc(1, f.Host.Alloc(64), 64, write, 0)
		for range q.size {
			q.Post(0)
		}
	}},
	{"the ring as a buffer", false, func(_ *fight, q *Queue) {
		for i := range q.size {
			q.PutDesc(i, q.Desc, 16*uint32(q.size), (i%2)*write, 0)
			q.Post(i)
		}
	}},
	{"garbage", false, func(f *fight, q *Queue) {
		at := f.Host.Alloc(4096)
		for i, b := 0, f.Host.Bytes(at, 4096); i < len(b); i++ {
			b[i] = byte(i*i>>3 ^ i)
		}
		for i := range q.size / 2 {
			q.PutDesc(2*i, at+mem.GPA(i*61), 16+uint32(i)*7, next, 2*i+1)
			q.PutDesc(2*i+1, at+2048, 1+uint32(i)*31, write, 0)
			q.Post(2 * i)
		}
	}},
}
