package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/hv/disk"
	"vmd/hv/state"
	"vmd/internal/vmop"
)

// newDrive is a raw disk of so many bytes.
func newDrive(t testing.TB, size int64) *drive {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return &drive{image: disk.Track(img), file: f}
}

// again is the same disk as another process has it.
func (d *drive) again(t *testing.T) *drive {
	t.Helper()
	f, err := os.OpenFile(d.file.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return &drive{image: disk.Track(img), file: f}
}

func all(t *testing.T, d *drive) []byte {
	t.Helper()
	b := make([]byte, d.image.Size())
	if err := d.image.ReadAtV([][]byte{b}, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// A disk that is written to while it is copied arrives as it is when the guest
// stands still.
func TestContents(t *testing.T) {
	const size = 40*pieceMax + 512
	src := []*drive{newDrive(t, size), newDrive(t, 3*pieceMax)}
	dst := []*drive{newDrive(t, size), newDrive(t, 3*pieceMax)}
	src[1].image.WriteAtV([][]byte{[]byte("the second")}, 2*pieceMax+5)
	src[0].image.WriteAtV([][]byte{bytes.Repeat([]byte{1}, 20*pieceMax)}, pieceMax/2)
	stop := make(chan struct{})
	var guest sync.WaitGroup
	guest.Add(1)
	go func() {
		defer guest.Done()
		rnd := rand.New(rand.NewSource(1))
		for b := make([]byte, 700); ; {
			select {
			case <-stop:
				return
			default:
			}
			rnd.Read(b)
			off := rnd.Int63n(size - 700)
			if rnd.Intn(4) == 0 {
				src[0].image.WriteZeroes(off, 700, true)
			} else {
				src[0].image.WriteAtV([][]byte{b}, off)
			}
		}
	}()
	var out bytes.Buffer
	c := newContents(state.NewWriter(&out), src)
	if err := c.live(context.Background()); err != nil {
		t.Fatal(err)
	}
	close(stop)
	guest.Wait()
	src[0].image.WriteZeroes(0, 30*pieceMax, true) // what has been sent, and is gone
	if err := c.rest(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.unwatch()
	c.w.Section(state.End, nil)
	c.w.Flush()
	r := state.NewReader(&out)
	if err := readPieces(r, dst); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Expect(state.End); err != nil {
		t.Error(err)
	}
	for i := range src {
		if !bytes.Equal(all(t, src[i]), all(t, dst[i])) {
			t.Errorf("disk %d differs", i)
		}
	}
}

// What is empty costs nothing.
func TestContentsOfEmptyDisk(t *testing.T) {
	var out bytes.Buffer
	c := newContents(state.NewWriter(&out), []*drive{newDrive(t, 1<<40)})
	if err := c.live(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.unwatch()
	c.w.Flush()
	if out.Len() > 0 {
		t.Errorf("%d bytes", out.Len())
	}
}

// Where much has been written that is zero, the receiver hears of us all the same.
func TestContentsSpeakUp(t *testing.T) {
	d := newDrive(t, 3*pieceMax)
	d.image.WriteAtV([][]byte{make([]byte, 3*pieceMax)}, 0)
	var out bytes.Buffer
	c := newContents(state.NewWriter(&out), []*drive{d})
	c.spoke = time.Now().Add(-contentQuiet)
	if err := c.live(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.unwatch()
	if out.Len() == 0 {
		t.Fatal("nothing was sent")
	}
	if err := readPieces(state.NewReader(&out), []*drive{newDrive(t, 3*pieceMax)}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestContentsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := newDrive(t, pieceMax)
	d.image.WriteAtV([][]byte{{1}}, 0)
	if err := newContents(state.NewWriter(io.Discard), []*drive{d}).live(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzPiece(f *testing.F) {
	var out bytes.Buffer
	src := newDrive(f, 2*pieceMax)
	src.image.WriteAtV([][]byte{[]byte("x")}, pieceMax)
	c := newContents(state.NewWriter(&out), []*drive{src})
	c.piece(0, pieceMax, 512, true)
	c.piece(0, 0, 512, true)
	c.w.Flush()
	for r := state.NewReader(&out); ; {
		_, b, err := r.Next()
		if err != nil {
			break
		}
		f.Add(bytes.Clone(b))
	}
	f.Add([]byte(nil))
	dst := []*drive{newDrive(f, 2*pieceMax)}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := writePiece(dst, b); err == nil && len(b) < pieceHeader {
			t.Errorf("%d bytes are a piece", len(b))
		}
		if st, err := dst[0].file.Stat(); err != nil || st.Size() != 2*pieceMax {
			t.Fatalf("the disk has become %d bytes, %v", st.Size(), err)
		}
	})
}

func TestPieceRefused(t *testing.T) {
	d := []*drive{newDrive(t, pieceMax)}
	good := make([]byte, pieceHeader+512)
	good[17] = 2 // length 512
	if err := writePiece(d, good); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(b []byte) []byte{
		"disk":            func(b []byte) []byte { b[0] = 1; return b },
		"kind":            func(b []byte) []byte { b[4] = 2; return b },
		"offset":          func(b []byte) []byte { b[15] = 0x80; return b },
		"end":             func(b []byte) []byte { b[10] = 1; return b },
		"length":          func(b []byte) []byte { b[16] = 1; return b },
		"wraps":           func(b []byte) []byte { b[4], b[8], b[23] = 1, 1, 0xff; return b[:pieceHeader] },
		"too short":       func(b []byte) []byte { return b[:pieceHeader-1] },
		"zeros with data": func(b []byte) []byte { b[4] = 1; return b },
	} {
		if err := writePiece(d, edit(bytes.Clone(good))); !errors.Is(err, state.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLocksMove(t *testing.T) {
	ours := []*drive{newDrive(t, 512), newDrive(t, 512)}
	theirs := []*drive{ours[0].again(t), ours[1].again(t)}
	a, b := &vm{drives: ours}, &vm{drives: theirs}
	if err := a.tryDrives(); err != nil {
		t.Fatal(err)
	}
	if err := b.tryDrives(); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("locked twice: %v", err)
	}
	a.unlockDrives()
	if err := theirs[1].flock(unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// All or none.
	if err := a.tryDrives(); !errors.Is(err, unix.EWOULDBLOCK) || ours[0].locked {
		t.Errorf("locked the first of two, %v", err)
	}
	if err := b.tryDrives(); err != nil {
		t.Error(err)
	}
	// They are given up a little later.
	time.AfterFunc(3*lockPause, b.unlockDrives)
	if err := a.lockDrives(); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyDrivesAreNotLocked(t *testing.T) {
	d := newDrive(t, 512)
	other := d.again(t)
	if err := other.flock(unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	d.readOnly = true
	v := &vm{drives: []*drive{d}}
	if err := v.tryDrives(); err != nil {
		t.Error(err)
	}
	v.unlockDrives()
}

func TestRingBytes(t *testing.T) {
	r := newRing()
	if b := r.bytes(); len(b) != 0 {
		t.Errorf("%d bytes of nothing", len(b))
	}
	r.Write([]byte("abc"))
	if b := r.bytes(); string(b) != "abc" {
		t.Errorf("got %q", b)
	}
	r.Write(bytes.Repeat([]byte("x"), ringSize-1))
	if b := r.bytes(); len(b) != ringSize || b[0] != 'c' || b[ringSize-1] != 'x' {
		t.Errorf("%d bytes, from %q", len(b), b[0])
	}
}

// pair is a stream and its other end.
func streamPair(t *testing.T) (*stream, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStream(os.NewFile(uintptr(fds[0]), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far")
	far.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { s.Close(); far.Close() })
	return s, far
}

// TestHandOver: who has the guest, by what the receiver says and when it falls
// silent.
func TestHandOver(t *testing.T) {
	readGo := func(far *os.File) { io.ReadFull(far, make([]byte, 24)) } // head and section
	for _, c := range []struct {
		name   string
		far    func(far *os.File)
		abort  bool
		want   string // in the error; "" for none
		unsure bool
		gone   bool // too late to abort
	}{
		{name: "runs", far: func(far *os.File) {
			io.WriteString(far, vmop.WordLoaded)
			readGo(far)
			io.WriteString(far, vmop.WordRuns)
		}, gone: true},
		{name: "ends at once", far: func(far *os.File) { far.Close() }, want: "the receiver is gone"},
		{name: "cannot use it", far: func(far *os.File) { io.WriteString(far, vmop.WordFailed) }, want: "could not use it"},
		{name: "babbles", far: func(far *os.File) { io.WriteString(far, "hello world") }, want: `said "hello wo" instead`},
		{name: "too early", far: func(far *os.File) { io.WriteString(far, vmop.WordRuns) }, want: "instead of"},
		{name: "half a word", far: func(far *os.File) { io.WriteString(far, "vmd"); far.Close() }, want: "unexpected EOF"},
		{name: "aborted", abort: true, far: func(far *os.File) { io.WriteString(far, vmop.WordLoaded) }, want: errAborted.Error()},
		{name: "cannot run it", far: func(far *os.File) {
			io.WriteString(far, vmop.WordLoaded)
			readGo(far)
			io.WriteString(far, vmop.WordFailed)
		}, want: "could not run it", gone: true},
		{name: "has not read Go", far: func(far *os.File) {
			io.WriteString(far, vmop.WordLoaded)
			p := []unix.PollFd{{Fd: int32(far.Fd()), Events: unix.POLLIN}}
			unix.Poll(p, 20_000)
			far.Close()
		}, want: "the stream broke", gone: true},
		{name: "falls silent", far: func(far *os.File) {
			io.WriteString(far, vmop.WordLoaded)
			readGo(far)
			far.Close()
		}, want: "is not known", unsure: true, gone: true},
		{name: "babbles at the end", far: func(far *os.File) {
			io.WriteString(far, vmop.WordLoaded)
			readGo(far)
			io.WriteString(far, "good bye")
		}, want: "is not known", unsure: true, gone: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, far := streamPair(t)
			d := newDrive(t, 512)
			v := &vm{drives: []*drive{d}}
			if err := v.tryDrives(); err != nil {
				t.Fatal(err)
			}
			o := &outgoing{v: v, s: s, before: vmop.Running, still: time.Now(), cancel: func() {}}
			o.content = newContents(state.NewWriter(s), v.drives)
			if c.abort {
				o.abort()
			}
			go c.far(far)
			err := o.handOver()
			switch {
			case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case errors.Is(err, errUnsure) != c.unsure:
				t.Errorf("unsure: %v", err)
			}
			if d.locked == c.gone {
				t.Errorf("locked %v", d.locked)
			}
			o.abort()
			if o.aborted && c.gone {
				t.Error("it could be aborted after that")
			}
		})
	}
}

// A stuck peer does not hold a stream for ever, and a closed stream nobody.
func TestStreamCloses(t *testing.T) {
	s, _ := streamPair(t)
	done := make(chan error, 2)
	go func() { _, err := s.Read(make([]byte, 1)); done <- err }()
	go func() { _, err := s.Write(make([]byte, 8<<20)); done <- err }()
	time.AfterFunc(10*time.Millisecond, s.Close)
	for range 2 {
		if err := <-done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}
