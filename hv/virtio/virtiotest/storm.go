package virtiotest

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vmd/hv/mem"
	"vmd/hv/virtio"
)

// deviceAttack is something wrong with a device as a whole. Whether it must
// notice depends on the device.
type deviceAttack struct {
	name string
	do   func(f *fight)
}

var deviceAttacks = []deviceAttack{
	{"a storm of doorbells", func(f *fight) {
		for range 5000 {
			for _, q := range f.qs {
				q.Ring()
			}
		}
	}},
	{"doorbells of queues that are not there", func(f *fight) {
		for i := range uint64(300) {
			f.Write(f.Notify+4*i, 2, i)
			f.Write(f.Notify+2*i+1, 4, i)
		}
	}},
	{"rings that change while they are read", rewrite},
	{"resets in flight", resets},
	{"a reset of the bus in flight", func(f *fight) {
		f.flood()
		f.Host.PCI.Reset()
		if err := f.Host.PCI.Assign(); err != nil {
			f.t.Fatal(err)
		}
	}},
	{"a pause in flight", func(f *fight) {
		for range 20 {
			f.flood()
			f.fn.Pause()
			f.fn.Resume()
		}
	}},
	{"queues that cannot be", badQueues},
	{"any register", anyRegister},
	{"any register of configuration space", anyConfig},
	{"BARs anywhere", badBARs},
}

// flood fills every queue with buffers of both kinds.
func (f *fight) flood() {
	at := RAMBase + hostileRAM/2
	for _, q := range f.qs {
		for i := range q.size / 2 {
			q.PutDesc(2*i, at, 16, next, 2*i+1)
			q.PutDesc(2*i+1, at+4096, 1024, write, 0)
			q.Post(2 * i)
		}
		q.Ring()
	}
}

// rewrite is a second vCPU that scribbles over the rings while the device works.
// How far the two get is chance; that nothing breaks is not.
func rewrite(f *fight) {
	var stop atomic.Bool
	var other sync.WaitGroup
	rings := slices.Clone(f.qs)
	other.Add(1)
	go func() {
		defer other.Done()
		r := rand.New(rand.NewPCG(1, 2))
		for !stop.Load() {
			for _, q := range rings {
				q.scribble(r)
			}
		}
	}()
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
		for _, q := range rings {
			q.Ring()
		}
		if f.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET != 0 {
			f.SetStatus(0)
			f.Host.free = RAMBase // the rings come to be where they were
			f.start()
		}
	}
	stop.Store(true)
	other.Wait()
}

// scribble overwrites one descriptor and moves the index on.
func (q *Queue) scribble(r *rand.Rand) {
	i := uint16(r.UintN(uint(q.size)))
	gpa := RAMBase + mem.GPA(r.UintN(hostileRAM+4096))
	q.PutDesc(i, gpa, uint32(r.UintN(5000)), uint16(r.UintN(8)), uint16(r.UintN(uint(q.size)+1)))
	atomic.StoreUint32(&q.avail[0], uint32(r.UintN(1<<16))<<16)
}

func resets(f *fight) {
	for range 30 {
		f.flood()
		f.SetStatus(0)
		f.Host.free = RAMBase
		f.start()
	}
}

// badQueues enables queues with sizes and addresses that cannot be.
func badQueues(f *fight) {
	if f.Legacy {
		for _, page := range []uint32{1, 0xfffff, 0x100000, 0xffffffff, uint32((ramEnd - 4096) / 4096)} {
			f.Init(0)
			f.Out(LegacyQueuePage, 4, page)
			f.Start()
		}
		return
	}
	good := f.Host.Alloc(4096)
	for _, c := range []struct {
		size              uint16
		desc, avail, used mem.GPA
	}{
		{0, good, good, good},
		{3, good, good, good},
		{0x8000, good, good, good},
		{0xffff, good, good, good},
		{16, good + 1, good, good},
		{16, good, good + 1, good},
		{16, good, good, good + 2},
		{16, ramEnd - 16, good, good},
		{16, good, ramEnd - 16, good},
		{16, good, good, ramEnd - 16},
		{16, 1<<64 - 16, 1<<64 - 2, 1<<64 - 4},
		{16, 0, 0, 0},
	} {
		f.Init(0)
		f.Write(f.Common+QueueSelect, 2, 0)
		f.Write(f.Common+QueueSize, 2, uint64(c.size))
		f.Write(f.Common+QueueDesc, 8, uint64(c.desc))
		f.Write(f.Common+QueueDriver, 8, uint64(c.avail))
		f.Write(f.Common+QueueDevice, 8, uint64(c.used))
		f.Write(f.Common+QueueEnable, 2, 1)
		if s := f.Status(); len(f.qs) > 0 && s&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
			f.t.Errorf("queue %+v: status %#x", c, s)
		}
		f.Start()
	}
}

// values are what is written to registers.
var values = []uint64{0, 1, 2, 3, 4, 7, 8, 15, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x80000000, 0xffffffff, 1<<63 - 1, 1<<64 - 1}

// anyRegister reads and writes every register in every width.
func anyRegister(f *fight) {
	if f.Legacy {
		for off := range uint64(0x80) {
			for _, v := range values {
				for n := 1; n <= 4 && off+uint64(n) <= 0x80; n *= 2 {
					f.In(off, n)
					f.Out(off, n, uint32(v))
				}
			}
		}
		return
	}
	for _, base := range []uint64{f.Common, f.ISR, f.Device, f.Notify, f.msixTable} {
		for off := range uint64(0x110) {
			for _, v := range values {
				for n := 1; n <= 8; n *= 2 {
					f.Read(base+off, n)
					f.Write(base+off, n, v)
				}
			}
		}
		f.flood()
	}
}

// anyConfig writes every register of configuration space.
func anyConfig(f *fight) {
	for reg := range 0x100 {
		for _, v := range values[:15] {
			for n := 1; n <= 4; n *= 2 {
				if reg&3+n <= 4 {
					f.SetConfig(reg, n, uint32(v))
					f.Config(reg, n)
				}
			}
		}
	}
}

// badBARs moves every BAR over memory, the APICs and each other.
func badBARs(f *fight) {
	for _, addr := range []uint32{0, uint32(RAMBase), 0xc0000000, 0xfec00000, 0xfee00000, 0xfffff000, 0xffffffff, 0xcf8, 0xc000} {
		for reg := 0x10; reg < 0x28; reg += 4 {
			f.SetConfig(reg, 4, addr)
			f.SetConfig(4, 2, 3)
			f.flood()
			f.Read(uint64(addr), 4)
			f.Host.ports.Write(uint64(addr&0xffff), []byte{1})
			f.SetConfig(4, 2, 0)
		}
	}
}
