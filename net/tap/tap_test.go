package tap_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
	"vmd/net/tap"
)

// etherType of the tests' frames: local experimental (IEEE 802). The kernel's
// own frames on a fresh interface have another.
const etherType = 0x88b5

func frame(n int, fill byte) []byte {
	b := bytes.Repeat([]byte{fill}, n)
	copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, etherType >> 8, etherType & 0xff})
	return b
}

// open makes a tap that is up, in a fresh network namespace, and a packet socket
// on its other side.
func open(t *testing.T) (*tap.Tap, int) {
	t.Helper()
	testenv.NetNS(t)
	fd := node(t)
	ifr, err := unix.NewIfreq("t0")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatalf("make a tap: %v", err)
	}
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(sock) })
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatalf("bring the tap up: %v", err)
	}
	i, err := net.InterfaceByName("t0")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(sock, &unix.SockaddrLinklayer{Protocol: etherType<<8&0xff00 | etherType>>8, Ifindex: i.Index}); err != nil {
		t.Fatal(err)
	}
	tp, err := tap.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tp.Close() })
	return tp, sock
}

// node opens the tun driver.
func node(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(tap.Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// read returns the next of the test's frames, without its header.
func read(t *testing.T, tp *tap.Tap, bufs [][]byte) []byte {
	t.Helper()
	for {
		n, err := tp.ReadFrame(bufs, true)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatal("woken, and nobody did")
		}
		if b := bytes.Join(bufs, nil)[:n]; b[12+12] == etherType>>8 && b[12+13] == etherType&0xff {
			return b[12:]
		}
	}
}

func TestFramesBothWays(t *testing.T) {
	tp, sock := open(t)
	bufs := [][]byte{make([]byte, 5), make([]byte, 20), nil, make([]byte, 2000)}
	for i := range 20 {
		want := frame(60+i*50, byte(i))
		if _, err := unix.Write(sock, want); err != nil {
			t.Fatal(err)
		}
		if got := read(t, tp, bufs); !bytes.Equal(got, want) {
			t.Fatalf("frame %d: %d bytes came as %d, or changed", i, len(want), len(got))
		}
		if err := tp.WriteFrame([][]byte{make([]byte, 12), want[:14], want[14:]}); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4096)
		n, err := unix.Read(sock, got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("frame %d: %d bytes came out as %d, or changed (%v)", i, len(want), n, err)
		}
	}
}

func TestFrameThatDoesNotFit(t *testing.T) {
	tp, sock := open(t)
	if _, err := unix.Write(sock, frame(500, 1)); err != nil {
		t.Fatal(err)
	}
	bufs := [][]byte{make([]byte, 100)}
	if got := read(t, tp, bufs); len(got) != 88 {
		t.Errorf("%d bytes, want what fits: 88", len(got))
	}
}

func TestWake(t *testing.T) {
	tp, _ := open(t)
	bufs := [][]byte{make([]byte, 2000)}
	for n := 1; n > 0; { // whatever the kernel had to say
		var err error
		if n, err = tp.ReadFrame(bufs, false); err != nil {
			t.Fatal(err)
		}
	}
	tp.Wake()
	if n, err := readOurs(tp, bufs); n != 0 || err != nil {
		t.Errorf("woken before the read: %d, %v", n, err)
	}
	done := make(chan error)
	go func() {
		n, err := readOurs(tp, bufs)
		if n != 0 {
			err = errors.New("a frame from nowhere")
		}
		done <- err
	}()
	tp.Wake()
	if err := <-done; err != nil {
		t.Errorf("woken during the read: %v", err)
	}
}

// readOurs waits for a frame of the test's, or to be woken.
func readOurs(tp *tap.Tap, bufs [][]byte) (int, error) {
	for {
		n, err := tp.ReadFrame(bufs, true)
		if n == 0 || err != nil || bufs[0][24] == etherType>>8 {
			return n, err
		}
	}
}

func TestOffloads(t *testing.T) {
	tp, _ := open(t)
	for _, bits := range []uint32{tp.Offloads(), 0, unix.TUN_F_CSUM} {
		if err := tp.SetOffload(bits); err != nil {
			t.Error(err)
		}
	}
	if err := tp.SetOffload(1 << 30); !errors.Is(err, unix.EINVAL) {
		t.Errorf("offload that does not exist: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	testenv.NetNS(t)
	fd := node(t)
	if _, err := tap.New(fd); err == nil {
		t.Error("a descriptor without an interface is a tap")
	}
	if err := unix.Close(fd); !errors.Is(err, unix.EBADF) {
		t.Errorf("New did not close what it refused: %v", err)
	}
	fd = node(t)
	ifr, err := unix.NewIfreq("t1")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	if _, err := tap.New(fd); !errors.Is(err, tap.ErrNotTap) {
		t.Errorf("tap without a header: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	dup, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tap.New(dup); err == nil {
		t.Error("a pipe is a tap")
	}
}

func TestTooManyPieces(t *testing.T) {
	tp, _ := open(t)
	bufs := make([][]byte, 257)
	for i := range bufs {
		bufs[i] = make([]byte, 8)
	}
	if err := tp.WriteFrame(bufs); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("write: %v", err)
	}
	if _, err := tp.ReadFrame(bufs, false); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("read: %v", err)
	}
}

func TestFramesDoNotAllocate(t *testing.T) {
	tp, sock := open(t)
	bufs := [][]byte{make([]byte, 12), make([]byte, 2000)}
	out, in := frame(1000, 1), [][]byte{make([]byte, 12), frame(500, 2)}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := unix.Write(sock, out); err != nil {
			t.Fatal(err)
		}
		if n, err := tp.ReadFrame(bufs, true); n == 0 || err != nil {
			t.Fatal(n, err)
		}
		if err := tp.WriteFrame(in); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per frame in and out", n)
	}
}
