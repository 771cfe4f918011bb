package tap_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
	"vmd/net/tap"
)

// Frames of many flows come on a queue only while it is active.
func TestQueueThatIsNotActive(t *testing.T) {
	testenv.NetNS(t)
	name, files, err := tap.Create(tap.Options{Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	var queues []*tap.Tap
	for _, f := range files {
		fd, err := unix.Dup(int(f.Fd()))
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		q, err := tap.New(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		queues = append(queues, q)
	}
	send := flows(t, name)
	buf := make([]byte, 2000)
	// arrived counts the test's frames that wait on a queue.
	arrived := func(q *tap.Tap) (n int) {
		for {
			k, err := q.ReadFrame([][]byte{buf}, false)
			if err != nil {
				t.Fatal(err)
			}
			if k == 0 {
				return n
			}
			if bytes.HasSuffix(buf[:k], []byte("flow")) {
				n++
			}
		}
	}
	for _, on := range []bool{false, false, true, true, false} {
		if err := queues[1].SetActive(on); err != nil {
			t.Fatal(err)
		}
		send(64)
		first, second := arrived(queues[0]), arrived(queues[1])
		if first+second != 64 || on != (second > 0) {
			t.Errorf("active %v: %d frames on the first queue, %d on the second", on, first, second)
		}
	}
}

func TestSingleQueueStaysActive(t *testing.T) {
	tp, _ := open(t)
	for _, on := range []bool{false, true} {
		if err := tp.SetActive(on); err != nil {
			t.Error(err)
		}
	}
}

// flows brings a tap up and returns what sends one frame for each of n UDP
// ports out of it.
func flows(t *testing.T, name string) func(n int) {
	t.Helper()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(sock) })
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	to := &unix.SockaddrLinklayer{Ifindex: i.Index, Halen: 6}
	return func(n int) {
		t.Helper()
		for port := range n {
			b := append([]byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0}, // Ethernet
				0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2) // IPv4
			b = binary.BigEndian.AppendUint16(b, uint16(1000+port))
			b = append(b, 0, 9, 0, 12, 0, 0)
			if err := unix.Sendto(sock, append(b, "flow"...), 0, to); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFilter(t *testing.T) {
	tp, sock := open(t)
	own, other, group := [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}, [6]byte{0x33, 0x33, 0, 0, 0, 1}
	last := [6]byte{2, 0, 0, 0, 0, 3} // always listed: what follows it has been read
	for _, c := range []struct {
		name  string
		addrs [][6]byte
		all   bool
		want  [][6]byte
	}{
		{"none", nil, false, [][6]byte{own, other, group}},
		{"one", [][6]byte{last, own}, false, [][6]byte{own}},
		{"all groups", [][6]byte{last, own}, true, [][6]byte{own, group}},
		{"a group", [][6]byte{last, group}, false, [][6]byte{group}},
		{"too many", make([][6]byte, 300), false, [][6]byte{own, other, group}},
		{"none again", nil, false, [][6]byte{own, other, group}},
	} {
		if err := tp.SetFilter(c.addrs, c.all); err != nil {
			t.Fatal(err)
		}
		for _, dst := range [][6]byte{own, other, group, last} {
			b := frame(60, 1)
			copy(b, dst[:])
			if _, err := unix.Write(sock, b); err != nil {
				t.Fatal(err)
			}
		}
		var got [][6]byte
		for {
			dst := [6]byte(read(t, tp, [][]byte{make([]byte, 2000)}))
			if dst == last {
				break
			}
			got = append(got, dst)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: frames for %x, want %x", c.name, got, c.want)
		}
	}
}
