package dhcp

import (
	"bytes"
	"errors"
	"sync"
	"testing"
)

// fakeLink is a tap that nothing comes from.
type fakeLink struct {
	written [][]byte
	err     error
	mu      sync.Mutex
	wakes   int
	woken   chan struct{}
}

func newFakeLink() *fakeLink { return &fakeLink{woken: make(chan struct{}, 1)} }

func (l *fakeLink) Offloads() uint32          { return 7 }
func (l *fakeLink) SetOffload(_ uint32) error { return nil }
func (l *fakeLink) SetActive(bool) error      { return nil }
func (l *fakeLink) WriteFrame(bufs [][]byte) error {
	l.written = append(l.written, bytes.Join(bufs, nil))
	return l.err
}
func (l *fakeLink) ReadFrame(_ [][]byte, wait bool) (int, error) {
	if wait {
		<-l.woken
	}
	return 0, nil
}
func (l *fakeLink) Wake() {
	l.mu.Lock()
	l.wakes++
	l.mu.Unlock()
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// pieces cuts b, with a header before it, into buffers of n bytes.
func pieces(head [headerLen]byte, b []byte, n int) (bufs [][]byte) {
	b = append(head[:], b...)
	for len(b) > n {
		bufs = append(bufs, b[:n])
		b = b[n:]
	}
	return append(bufs, b)
}

func TestResponderAnswers(t *testing.T) {
	discover := from(options(kind(msgDiscover))).frame()
	want, _ := testConfig.AppendReply(nil, discover, false)
	for _, n := range []int{1, 7, 26, 100, 2000} { // however the guest cuts it
		l := newFakeLink()
		r := Respond(l, testConfig)
		if err := r.WriteFrame(pieces([headerLen]byte{}, discover, n)); err != nil {
			t.Fatal(err)
		}
		if len(l.written) != 0 || l.wakes != 1 {
			t.Errorf("%d: %d frames went on, woken %d times", n, len(l.written), l.wakes)
		}
		got := make([]byte, 2000)
		bufs := [][]byte{got[:3], got[3:20], got[20:20], got[20:]}
		if n, err := r.ReadFrame(bufs, true); err != nil || !bytes.Equal(got[:n], append(make([]byte, headerLen), want...)) {
			t.Errorf("got %x, %v", got[:n], err)
		}
		if n, err := r.ReadFrame(bufs, false); n != 0 || err != nil {
			t.Errorf("got %d bytes more, %v", n, err)
		}
	}
}

func TestResponderPassesOn(t *testing.T) {
	gso := [headerLen]byte{0, 1}
	discover := from(options(kind(msgDiscover)))
	otherPort := from(options(kind(msgDiscover)))
	otherPort.udp.DstPort = 1067
	for name, bufs := range map[string][][]byte{
		"nothing":      {},
		"a header":     pieces([headerLen]byte{}, nil, 12),
		"short":        pieces([headerLen]byte{}, make([]byte, 60), 12),
		"not IP":       pieces([headerLen]byte{}, make([]byte, 600), 100),
		"long":         pieces([headerLen]byte{}, make([]byte, 65000), 4096),
		"segments":     pieces(gso, discover.frame(), 4096),
		"another port": pieces([headerLen]byte{}, otherPort.frame(), 4096),
	} {
		l := newFakeLink()
		l.err = errors.New("no room")
		r := Respond(l, testConfig)
		if err := r.WriteFrame(bufs); !errors.Is(err, l.err) {
			t.Errorf("%s: got %v", name, err)
		}
		if len(l.written) != 1 || !bytes.Equal(l.written[0], bytes.Join(bufs, nil)) || l.wakes != 0 {
			t.Errorf("%s: did not go on as it was", name)
		}
	}
}

func TestResponderTakesAnUnfinishedChecksum(t *testing.T) {
	b := renewal().frame()
	b[14+20+6] ^= 0x55
	for head, passed := range map[[headerLen]byte]int{{}: 1, {needsChecksum}: 0} {
		l := newFakeLink()
		if err := Respond(l, testConfig).WriteFrame(pieces(head, b, 4096)); err != nil || len(l.written) != passed {
			t.Errorf("header %x: %d frames went on, %v", head, len(l.written), err)
		}
	}
}

// A release is ours, and nothing comes of it.
func TestResponderSwallowsWhatHasNoAnswer(t *testing.T) {
	l := newFakeLink()
	r := Respond(l, testConfig)
	if err := r.WriteFrame(pieces([headerLen]byte{}, from(options(kind(msgDecline))).frame(), 4096)); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.ReadFrame([][]byte{make([]byte, 2000)}, false); n != 0 || len(l.written) != 0 || l.wakes != 0 {
		t.Errorf("answer of %d bytes, %d frames went on", n, len(l.written))
	}
}

// All requests of a batch are answered, in order, as long as there is room.
func TestResponderAnswersAll(t *testing.T) {
	l := newFakeLink()
	r := Respond(l, testConfig)
	for round := range 3 {
		for i := range maxWaiting + 5 {
			m := from(options(kind(msgDiscover)))
			m.xid = uint32(round<<8 | i)
			if err := r.WriteFrame(pieces([headerLen]byte{}, m.frame(), 4096)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range maxWaiting {
			b := make([]byte, 2000)
			n, err := r.ReadFrame([][]byte{b}, false)
			if err != nil || n == 0 {
				t.Fatalf("answer %d: %d bytes, %v", i, n, err)
			}
			if m := received(t, b[headerLen:n]); m.xid != uint32(round<<8|i) {
				t.Errorf("answer %d is to %#x", i, m.xid)
			}
		}
		if n, _ := r.ReadFrame([][]byte{make([]byte, 2000)}, false); n != 0 || len(l.written) != 0 {
			t.Errorf("%d bytes more, %d frames went on", n, len(l.written))
		}
	}
}

// An answer that does not fit the guest's buffers is cut.
func TestResponderWithSmallBuffers(t *testing.T) {
	r := Respond(newFakeLink(), testConfig)
	if err := r.WriteFrame(pieces([headerLen]byte{}, from(nil).frame(), 4096)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadFrame([][]byte{make([]byte, 40), make([]byte, 60)}, false); n != 100 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

// One goroutine writes while another reads.
func TestResponderBothWays(t *testing.T) {
	const total = 500
	l := newFakeLink()
	r := Respond(l, testConfig)
	last := make(chan uint32)
	go func() {
		b := make([]byte, 2000)
		var xid uint32
		for xid != total {
			n, err := r.ReadFrame([][]byte{b}, true)
			if err != nil {
				t.Error(err)
				break
			}
			if n > 0 {
				next := uint32(b[headerLen+42+6])<<8 | uint32(b[headerLen+42+7])
				if next <= xid {
					t.Errorf("answer to %d after that to %d", next, xid)
				}
				xid = next
			}
		}
		last <- xid
	}()
	for i := uint32(1); ; i++ {
		m := from(options(kind(msgDiscover)))
		m.xid = min(i, total) // the last until it comes through: some are lost
		if err := r.WriteFrame(pieces([headerLen]byte{}, m.frame(), 4096)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-last:
			return
		default:
		}
	}
}

func TestResponderDoesNotAllocate(t *testing.T) {
	r := Respond(silent{newFakeLink()}, testConfig)
	discover := pieces([headerLen]byte{}, from(options(kind(msgDiscover))).frame(), 4096)
	other := pieces([headerLen]byte{}, make([]byte, 1000), 4096)
	in := [][]byte{make([]byte, 2000)}
	if n := testing.AllocsPerRun(100, func() {
		r.WriteFrame(other)
		r.WriteFrame(discover)
		if n, _ := r.ReadFrame(in, false); n == 0 {
			t.Error("no answer")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A guest that asks and does not read is answered a few times, and fills nothing.
func TestResponderFlooded(t *testing.T) {
	r := Respond(silent{newFakeLink()}, testConfig)
	flood := [][][]byte{
		pieces([headerLen]byte{}, from(options(kind(msgDiscover))).frame(), 4096),
		pieces([headerLen]byte{}, from(options(kind(msgRequest), requestedIP(10, 0, 0, 1))).frame(), 7),
		pieces([headerLen]byte{}, from(options(kind(msgDecline))).frame(), 4096),
		pieces([headerLen]byte{}, from([]byte{99, 130, 83, 99, 53, 255, 50, 255}).frame(), 4096),
	}
	if n := testing.AllocsPerRun(1000, func() {
		for _, f := range flood {
			if err := r.WriteFrame(f); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	answers, in := 0, [][]byte{make([]byte, 2000)}
	for n, _ := r.ReadFrame(in, false); n != 0; n, _ = r.ReadFrame(in, false) {
		answers++
	}
	if answers != maxWaiting {
		t.Errorf("%d answers waited, want %d", answers, maxWaiting)
	}
}

// silent does not keep what is written.
type silent struct{ *fakeLink }

func (silent) WriteFrame([][]byte) error { return nil }
