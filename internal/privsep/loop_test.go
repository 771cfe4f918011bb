package privsep

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/testenv"
)

// A process that ends still has its last words for its manager, also if that has
// something more to say: a second stop, which came while the first was carried
// out, once closed the connection.
func TestLastWordsAfterStop(t *testing.T) {
	a, b, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := imsg.New(a)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := imsg.New(b)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	l := NewLoop()
	l.Read(ours, func(imsg.Msg) { l.Stop(nil) }, func(error) {})
	for range 2 {
		if err := theirs.Send(1, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := ours.Send(2, 0, nil); err != nil {
			t.Fatalf("the last word: %v", err)
		}
		if m, err := theirs.Recv(); err != nil || m.Type != 2 {
			t.Fatalf("heard %v, %v", m.Type, err)
		}
	}
}

// A descriptor that a peer sends unasked may take for ever to be closed. That
// keeps nobody waiting but the peer.
func TestSlowDescriptor(t *testing.T) {
	a, b, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	f, release := testenv.SlowFile(t)
	// In a packet of our own making, so that ours is closed first.
	packet := make([]byte, 12)
	packet[0], packet[2] = 1, 7
	if err := unix.Sendmsg(int(a.Fd()), packet, unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	conn, err := imsg.New(b)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := NewLoop()
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	handled := make(chan struct{})
	l.Read(conn, func(imsg.Msg) { close(handled) }, func(error) {})
	<-handled
	l.Stop(nil)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the loop waits for a stranger's descriptor")
	}
	release()
}
