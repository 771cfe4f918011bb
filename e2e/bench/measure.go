package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmd/e2e/lab"
)

// figures are what one boot costs.
type figures struct {
	boot   time.Duration // start of the guest to the first line of init
	exits  int           // all returns from the guest to KVM
	user   int           // those for a port or MMIO access
	memory               // of the process
}

// running is a guest, ready to be started.
type running interface {
	begin() error
	awaitInit() error  // until its init has spoken
	pid() (int, error) // of the process with its vCPU
	end()              // leaves nothing
}

// contender is a way to run the lab's guest.
type contender struct {
	name    string
	prepare func() (running, error)
}

// guestMiB is the memory of each guest.
const guestMiB = 256

// cmdline is the command line of each guest's kernel.
const cmdline = "console=ttyS0 quiet panic=-1 modules=no"

func guest(name string) string { return filepath.Join(os.Getenv(lab.GuestsVar), name) }

// measure prints a table with a line for each contender.
func measure(rounds int, only string) error {
	fmt.Printf("| machine | boot, ms (spread) | exits | port+MMIO | resident, MiB | private, MiB |\n")
	fmt.Printf("| --- | ---: | ---: | ---: | ---: | ---: |\n")
	var errs []error
	for _, c := range contenders() {
		if only != "" && !strings.Contains(c.name, only) {
			continue
		}
		var all []figures
		for round := range rounds + 1 {
			progress("%s, %d", c.name, round)
			f, err := bootOnce(c)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
				break
			}
			if round > 0 { // the first one warms caches
				all = append(all, f)
			}
		}
		if len(all) > 0 {
			printRow(c.name, all)
		}
	}
	return errors.Join(errs...)
}

// printRow prints the round with the middle time; the others only count for
// the spread.
func printRow(name string, all []figures) {
	slices.SortFunc(all, func(a, b figures) int { return cmp.Compare(a.boot, b.boot) })
	f := all[len(all)/2]
	spread := 100 * float64(all[len(all)-1].boot-all[0].boot) / float64(f.boot)
	fmt.Printf("| %s | %d (%.1f %%) | %d | %d | %.1f | %.1f |\n", name, f.boot.Milliseconds(), spread,
		f.exits, f.user, float64(f.resident)/1024, float64(f.private)/1024)
}

// bootOnce boots one guest up to its init, with nothing else running. KVM's
// counters are sums over the VMs that are there: read before it goes.
func bootOnce(c contender) (f figures, err error) {
	r, err := c.prepare()
	if err != nil {
		return f, err
	}
	defer r.end()
	start := time.Now()
	if err := r.begin(); err != nil {
		return f, err
	}
	if err := r.awaitInit(); err != nil {
		return f, err
	}
	f.boot = time.Since(start)
	if f.exits, err = kvmCounter("exits"); err != nil {
		return f, err
	}
	for _, name := range []string{"io_exits", "mmio_exits"} {
		n, err := kvmCounter(name)
		if err != nil {
			return f, err
		}
		f.user += n
	}
	pid, err := r.pid()
	if err != nil {
		return f, err
	}
	f.memory, err = memoryOf(pid)
	return f, err
}

func kvmCounter(name string) (int, error) {
	b, err := os.ReadFile("/sys/kernel/debug/kvm/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// memory is what a process has of it in KiB, without the guest's.
type memory struct {
	resident int
	private  int // what would not be there without it: no pages of a shared program
}

// memoryOf adds up a process's mappings but those as large as the guest (proc(5),
// smaps).
func memoryOf(pid int) (m memory, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return m, err
	}
	guests := false
	for line := range strings.Lines(string(b)) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		n, err := strconv.Atoi(fields[0])
		if err != nil {
			return m, err
		}
		switch {
		case key == "Size":
			guests = n >= guestMiB<<10
		case guests:
		case key == "Rss":
			m.resident += n
		case key == "Private_Clean", key == "Private_Dirty":
			m.private += n
		}
	}
	return m, nil
}

// readUntil reads until it has seen text.
func readUntil(read func([]byte) (int, error), text string) error {
	var seen bytes.Buffer
	b := make([]byte, 4096)
	for {
		n, err := read(b)
		seen.Write(b[:n])
		if bytes.Contains(seen.Bytes(), []byte(text)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("no %q: %w: %s", text, err, seen.Bytes())
		}
	}
}
