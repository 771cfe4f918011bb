package vm

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
	"vmd/net/frame"
)

// announcements are when, after a guest has come, the network is told where its
// addresses are now. A bridge may still be listening to other things (a port
// that has just come up), so it is told more than once.
var announcements = []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// announce has bridges between here and the guest's peers learn where it is: a
// guest that only listens would not be heard of. The frames go out by the taps
// beside those that the guest sends.
func (v *vm) announce() {
	for i, tap := range v.announcers {
		f := frame.RARP(v.spec.NICs[i].MAC)
		for _, d := range announcements {
			v.Loop.After(d, func() { sendFrame(tap, f) })
		}
	}
}

// sendFrame writes f to a tap that wants a header of 12 bytes. One that does not
// go is lost, like any other.
func sendFrame(tap *os.File, f []byte) {
	raw, err := tap.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { unix.Write(int(fd), append(make([]byte, 12), f...)) })
}

// keepAnnouncer keeps a copy of interface i's tap, which is still a file, for
// announce.
func (v *vm) keepAnnouncer(i int, n vmop.NICArg) error {
	if v.spec.Receive == nil || n.Local != nil || n.Down {
		return nil
	}
	f, err := v.files.dup("tap" + strconv.Itoa(i))
	if err == nil && f != nil {
		v.announcers[i] = f
	}
	return err
}
