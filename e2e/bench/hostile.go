package main

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	"vmd/e2e/lab"
)

// A guest that sends hostile frames is looked at by its own process, for a
// bounded time each: what another guest notices of it is the processor that both
// share. Here they share one, with the host.

// hostileRate is how many frames a second the hostile guest sends.
const hostileRate = 1000

const hostileConf = `vm "bench" {
	disable
	memory %[1]dM
	boot %[2]q
	initrd %[3]q
	cmdline %[4]q
	interface tap { locked lladdr }
}
vm "hostile" {
	disable
	memory %[1]dM
	boot %[2]q
	initrd %[3]q
	cmdline "console=ttyS0 quiet panic=-1 name=hostile"
	local interface { locked lladdr }
}
`

// floods are what the hostile guest sends; with frames like any others to
// compare with, for a guest that sends takes its share of the processor.
var floods = []struct{ name, args string }{
	{"quiet", ""},
	{"frames that are not hostile", "-kind plain"},
	{"requests for an address, malformed", "-kind broken-dhcp"},
	{"requests for somebody else's address", "-kind dhcp"},
	{"frames from another address", "-source 02:00:00:00:00:77"},
}

// hostilePair is a guest and one that means harm, of one vmd.
type hostilePair struct {
	vmdNetGuest
	other io.ReadWriteCloser
}

// measureHostile prints what becomes of one guest's network while another is
// hostile, beside what it is without.
func measureHostile(initrd string, rounds int) error {
	p := &hostilePair{}
	defer p.end()
	text := fmt.Sprintf(hostileConf, guestMiB, guest(lab.GuestVMLinux), initrd, netWords)
	if err := p.boot(text); err != nil {
		return fmt.Errorf("%w\n%s", err, p.log.Bytes())
	}
	fmt.Printf("\n| another guest sends %d frames a second: | round trip, us | ratio |\n| --- | ---: | ---: |\n", hostileRate)
	var base float64
	for _, f := range floods {
		progress("another guest: %s", f.name)
		trips, err := p.under(f.args, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		shown := middle(trips)
		trip := trips[len(trips)/2]
		if base == 0 {
			base = trip
		}
		fmt.Printf("| %s | %s | %.2f |\n", f.name, shown, trip/base)
	}
	return nil
}

func (p *hostilePair) boot(text string) error {
	if err := p.daemonWith(text); err != nil {
		return err
	}
	if err := p.begin(); err != nil {
		return err
	}
	if err := serveTraffic(p); err != nil {
		return err
	}
	first := p.tty
	if err := p.beginVM("hostile"); err != nil {
		return err
	}
	p.other, p.tty = p.tty, first
	if err := readUntil(p.other.Read, "guest ready"); err != nil {
		return err
	}
	_, err := io.WriteString(p.other, "run ip link set eth0 up\n")
	if err == nil {
		err = readUntil(p.other.Read, "status 0")
	}
	return err
}

// under measures round trips of the one while the other sends, rounds times.
func (p *hostilePair) under(args string, rounds int) (trips []float64, err error) {
	if args != "" {
		// More than the measurement takes; what is left is ended.
		_, err := fmt.Fprintf(p.other, "run traffic send %s -count 10000000 -rate %d eth0 & echo sending\n", args, hostileRate)
		if err == nil {
			err = readUntil(p.other.Read, "status 0")
		}
		if err != nil {
			return nil, err
		}
		defer func() {
			io.WriteString(p.other, "run killall traffic\n")
			readUntil(p.other.Read, "status ")
		}()
	}
	for range rounds {
		out, err := exec.Command(traffic, "ping", "-trips", "3000", netGuest).CombinedOutput()
		f := strings.Fields(string(out))
		if err != nil || len(f) != 3 {
			return nil, fmt.Errorf("traffic ping: %w: %s", err, out)
		}
		trip, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return nil, err
		}
		trips = append(trips, trip)
	}
	return trips, nil
}
