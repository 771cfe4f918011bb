package privsep

import (
	"testing"
	"time"

	"vmd/internal/imsg"
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
