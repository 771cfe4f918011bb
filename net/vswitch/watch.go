package vswitch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watch is a socket that tells of links that come and go.
type watch struct {
	f   *os.File
	buf []byte
}

// maxNotice is the most that the kernel says at once (NLMSG_GOODSIZE, with room).
const maxNotice = 64 << 10

func openWatch() (*watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch links: %w", err), unix.Close(fd))
	}
	return &watch{os.NewFile(uintptr(fd), "link watch"), make([]byte, maxNotice)}, nil
}

// Gone waits until taps have gone and returns their names. When so much has
// happened that some of it was lost, it returns none. After Close the error is
// os.ErrClosed. A goroutine of its own may call it.
func (c *Conn) Gone() ([]string, error) {
	for {
		n, err := c.watch.f.Read(c.watch.buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil, nil
		case err != nil:
			return nil, err
		}
		if names := goneTaps(c.watch.buf[:n]); len(names) > 0 {
			return names, nil
		}
	}
}

// goneTaps are the taps whose end the messages in b tell of. A tap that only
// leaves its bridge is told of with the family of bridges.
func goneTaps(b []byte) (names []string) {
	for m := range messages(b) {
		if m.typ != unix.RTM_DELLINK || len(m.body) < unix.SizeofIfInfomsg || m.body[0] != unix.AF_UNSPEC {
			continue
		}
		var name, kind string
		for a, v := range attrs(m.body[unix.SizeofIfInfomsg:]) {
			switch a {
			case unix.IFLA_IFNAME:
				name = text(v)
			case unix.IFLA_LINKINFO:
				for a, v := range attrs(v) {
					if a == unix.IFLA_INFO_KIND {
						kind = text(v)
					}
				}
			}
		}
		if kind == "tun" && name != "" {
			names = append(names, name)
		}
	}
	return names
}
