package vioblk_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"vmd/hv/disk"
	"vmd/hv/mem"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/virtiotest"
)

// latency is what storage takes for each request in these tests: more than a
// request from memory is allowed.
const latency = 2 * time.Millisecond

// storage is an image on slow storage. Reads can be held up.
type storage struct {
	disk.Image
	mu      sync.Mutex
	cond    sync.Cond
	held    bool // reads wait
	inside  int  // reads that wait
	panics  bool
	flushed int
}

func newStorage(t testing.TB) *storage {
	s := &storage{Image: image(t, false)}
	s.cond.L = &s.mu
	return s
}

func (s *storage) ReadAtV(bufs [][]byte, off int64) error {
	time.Sleep(latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside++
	s.cond.Broadcast()
	for s.held {
		s.cond.Wait()
	}
	s.inside--
	if s.panics {
		panic("bug")
	}
	return s.Image.ReadAtV(bufs, off)
}

func (s *storage) Flush() error {
	s.mu.Lock()
	s.flushed++
	s.mu.Unlock()
	return s.Image.Flush()
}

// hold has reads wait, and let go on.
func (s *storage) hold(on bool) {
	s.mu.Lock()
	s.held = on
	s.cond.Broadcast()
	s.mu.Unlock()
}

// await returns when n reads wait.
func (s *storage) await(n int) {
	s.mu.Lock()
	for s.inside < n {
		s.cond.Wait()
	}
	s.mu.Unlock()
}

// many is a guest with requests of its own each.
type many struct {
	*guest
	head, stat, data [64]mem.GPA
}

// slowGuest has a disk whose device knows that it is slow.
func slowGuest(t testing.TB, s disk.Image, warn func(error)) *many {
	t.Helper()
	m := &many{guest: boot(t, s, vioblk.Config{}, 0, warn)}
	for k := range m.head {
		m.head[k], m.stat[k], m.data[k] = m.Host.Alloc(16), m.Host.Alloc(1), m.Host.Alloc(512)
	}
	for range 4 {
		if st, _ := m.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(m.guest.data, 512)); st != 0 {
			t.Fatalf("status %d", st)
		}
	}
	return m
}

// add makes request k available: a read of sector k.
func (m *many) add(k int, op uint32) {
	b := m.Host.Bytes(m.head[k], 16)
	binary.LittleEndian.PutUint32(b, op)
	binary.LittleEndian.PutUint64(b[8:], uint64(k))
	m.Host.Bytes(m.stat[k], 1)[0] = 0xff
	parts := []virtiotest.Part{virtiotest.In(m.head[k], 16), virtiotest.Out(m.data[k], 512), virtiotest.Out(m.stat[k], 1)}
	if op == vioblk.VIRTIO_BLK_T_FLUSH {
		parts = append(parts[:1], parts[2])
	}
	m.q.Add(parts...)
}

// Slow storage has several requests at a time; each is answered with what is
// its own, whatever the order.
func TestSlowStorageWorksInParallel(t *testing.T) {
	s := newStorage(t)
	want := pattern(64*512, 3)
	write(t, s, want)
	m := slowGuest(t, s, nil)
	s.hold(true)
	for k := range m.head {
		m.add(k, vioblk.VIRTIO_BLK_T_IN)
	}
	m.q.Kick()
	s.await(8)
	s.hold(false)
	for range m.head {
		m.q.Wait()
	}
	for k := range m.head {
		if st := m.Host.Bytes(m.stat[k], 1)[0]; st != 0 || !bytes.Equal(m.Host.Bytes(m.data[k], 512), want[k*512:][:512]) {
			t.Errorf("read %d: status %d, or another sector's data", k, st)
		}
	}
	if c := m.counters(); c.ReadOps != 64+4 || c.Errors != 0 {
		t.Errorf("counters %+v", c)
	}
}

func write(t *testing.T, img disk.Image, b []byte) {
	t.Helper()
	if err := img.WriteAtV([][]byte{b}, 0); err != nil {
		t.Fatal(err)
	}
}

// A flush that comes while reads are waiting does not wait for them.
func TestFlushPassesSlowReads(t *testing.T) {
	s := newStorage(t)
	m := slowGuest(t, s, nil)
	s.hold(true)
	m.add(0, vioblk.VIRTIO_BLK_T_IN)
	m.q.Kick()
	s.await(1)
	m.add(1, vioblk.VIRTIO_BLK_T_FLUSH)
	m.q.Kick()
	m.q.Wait()
	s.mu.Lock()
	n := s.flushed
	s.mu.Unlock()
	if st := m.Host.Bytes(m.stat[1], 1)[0]; st != 0 || n != 1 {
		t.Errorf("status %d after %d flushes", st, n)
	}
	s.hold(false)
	m.q.Wait()
}

// A pause returns when nothing uses the guest's memory any more, and all that
// was on its way is answered.
func TestPauseAndResetWaitForTheCrew(t *testing.T) {
	for name, stop := range map[string]func(*many){
		"pause": func(m *many) { m.fn.Pause() },
		"reset": func(m *many) { m.SetStatus(0) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStorage(t)
			m := slowGuest(t, s, nil)
			s.hold(true)
			for k := range 5 {
				m.add(k, vioblk.VIRTIO_BLK_T_IN)
			}
			m.q.Kick()
			s.await(5)
			done := make(chan struct{})
			go func() {
				stop(m)
				close(done)
			}()
			select {
			case <-done:
				t.Fatal("returned while reads were on their way")
			case <-time.After(latency):
			}
			s.hold(false)
			<-done
			if s.inside != 0 {
				t.Errorf("%d reads are inside", s.inside)
			}
			if name == "reset" {
				return
			}
			for k := range 5 {
				if _, _, ok := m.q.Next(); !ok {
					t.Fatalf("%d of 5 requests answered", k)
				}
			}
			m.fn.Resume()
			if st, _ := m.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(m.guest.data, 512)); st != 0 {
				t.Errorf("after it: status %d", st)
			}
		})
	}
}

// A guest that breaks its queue while reads are on their way loses the device,
// and a reset gets it back.
func TestBrokenQueueWithReadsOnTheirWay(t *testing.T) {
	s := newStorage(t)
	warned := make(chan error, 1)
	m := slowGuest(t, s, func(err error) { warned <- err })
	s.hold(true)
	m.add(0, vioblk.VIRTIO_BLK_T_IN)
	m.q.Kick()
	s.await(1)
	m.q.Post(999)
	m.q.Ring()
	<-warned
	s.hold(false)
	m.fn.Pause()
	if s.inside != 0 {
		t.Error("a read is inside after a pause")
	}
	m.fn.Resume()
	m.start(0)
	if st, _ := m.do(vioblk.VIRTIO_BLK_T_IN, 0, virtiotest.Out(m.guest.data, 512)); st != 0 {
		t.Errorf("after a reset: status %d", st)
	}
}

func TestPanicOfTheCrewCostsTheDeviceOnly(t *testing.T) {
	s := newStorage(t)
	warned := make(chan error, 1)
	m := slowGuest(t, s, func(err error) { warned <- err })
	s.mu.Lock()
	s.panics = true
	s.mu.Unlock()
	m.add(0, vioblk.VIRTIO_BLK_T_IN)
	m.q.Kick()
	if err := <-warned; !strings.Contains(err.Error(), "panicked") {
		t.Error(err)
	}
	m.WaitConfig()
	m.SetStatus(0)
}

func TestNoAllocationWithTheCrew(t *testing.T) {
	m := slowGuest(t, newStorage(t), nil)
	run := func() {
		for k := range 16 {
			m.add(k, vioblk.VIRTIO_BLK_T_IN)
		}
		m.q.Kick()
		for range 16 {
			m.q.Wait()
		}
	}
	for range 20 { // hands, and the runtime's threads for them
		run()
	}
	if n := testing.AllocsPerRun(20, run); n != 0 {
		t.Errorf("%v allocations for 16 reads", n)
	}
}

// late is an image whose every request is late enough for the crew.
type late struct{ disk.Image }

func (l late) wait() { time.Sleep(latency / 4) }

func (l late) ReadAtV(bufs [][]byte, off int64) error {
	l.wait()
	return l.Image.ReadAtV(bufs, off)
}

func (l late) WriteAtV(bufs [][]byte, off int64) error {
	l.wait()
	return l.Image.WriteAtV(bufs, off)
}

func TestHostileGuestOnSlowStorage(t *testing.T) {
	v := victim
	v.New = func(t testing.TB, _ *virtiotest.Host) virtio.Device {
		dev, err := vioblk.New(late{image(t, false)}, vioblk.Config{Queues: 2})
		if err != nil {
			t.Fatal(err)
		}
		return dev
	}
	v.Attack(t)
}
