package cmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"vmd/internal/notation"
	"vmd/internal/scaled"
	"vmd/internal/vmop"
)

// writeDetails writes all that is known of vms, a paragraph each.
func writeDetails(w io.Writer, vms []vmop.VM, stats map[uint32]*vmop.Stats, n *names, now int64) error {
	d := details{w: w, names: n, now: now}
	for i := range vms {
		if i > 0 {
			d.printf("\n")
		}
		d.vm(&vms[i], stats[vms[i].ID])
	}
	if d.err != nil {
		return failf("write error: %s", strerror(d.err))
	}
	return nil
}

// details writes until there is an error.
type details struct {
	w     io.Writer
	names *names
	now   int64
	err   error
}

func (d *details) printf(format string, args ...any) {
	if d.err == nil {
		_, d.err = fmt.Fprintf(d.w, format, args...)
	}
}

// row writes a line of a VM's paragraph.
func (d *details) row(label, format string, args ...any) {
	d.printf("    %-10s "+format+"\n", append([]any{label}, args...)...)
}

func (d *details) vm(vm *vmop.VM, s *vmop.Stats) {
	d.printf("%s: %s\n", plain(vm.Name), vm.State)
	d.row("id", "%d, uuid %s", vm.ID, notation.UUID(vm.UUID))
	d.row("owner", "%s", plain(d.names.wholeOwner(vm)))
	d.row("memory", "%s%s", scaled.Format(vm.MemoryBytes), inUse(vm, s))
	d.row("cpus", "%d", vm.CPUs)
	if e := vm.Encryption; e != nil {
		d.row("encryption", "%s, launch digest %x", encryption(e), e.Digest)
	}
	if vm.PID != 0 {
		d.row("process", "%d, %s resident, up %s", vm.PID, scaled.Format(vm.Resident), since(vm.Started, d.now))
	}
	if vm.TTY != "" {
		d.row("console", "%s", plain(vm.TTY))
	}
	if l := limits(vm.Limits); l != "" {
		d.row("limits", "%s", l)
	}
	d.row("defined", "%s", definedBy(vm))
	if vm.Changed {
		d.row("changed", "%s", pendingChanges(vm))
	}
	if vm.LastExit != "" {
		d.row("last exit", "%s", oneLine(vm.LastExit))
	}
	for i := range vm.Disks {
		d.disk(i, &vm.Disks[i], s)
	}
	for i := range vm.NICs {
		d.nic(i, &vm.NICs[i], s)
	}
	if s != nil {
		d.counters(s)
	}
}

func (d *details) disk(i int, k *vmop.Disk, s *vmop.Stats) {
	label := fmt.Sprintf("disk %d", i)
	if k.CDROM {
		label = "cdrom"
	}
	size := "size unknown"
	if k.Size >= 0 {
		size = scaled.Format(uint64(k.Size))
	}
	if k.Used >= 0 {
		size += ", " + scaled.Format(uint64(k.Used)) + " used"
	}
	format := k.Format
	if format == "" {
		format = "format unknown"
	}
	d.row(label, "%s, %s, %s", oneLine(k.Path), plain(format), size)
	if s != nil && i < len(s.Disks) {
		c := &s.Disks[i]
		d.row("", "%d reads, %s; %d writes, %s; %d flushes; %d errors", c.ReadOps, scaled.Format(c.ReadBytes),
			c.WriteOps, scaled.Format(c.WriteBytes), c.FlushOps, c.Errors)
	}
}

func (d *details) nic(i int, n *vmop.NIC, s *vmop.Stats) {
	words := []string{notation.MAC(n.MAC)}
	if n.Tap != "" {
		words = append(words, plain(n.Tap))
	}
	switch {
	case n.Switch != "":
		words = append(words, "switch "+plain(n.Switch))
	case n.Local:
		words = append(words, "local")
	default:
		words = append(words, "not connected")
	}
	if n.Address != "" {
		words = append(words, "guest "+plain(n.Address))
	}
	if n.HostAddress != "" {
		words = append(words, "host "+plain(n.HostAddress))
	}
	d.row(fmt.Sprintf("nic %d", i), "%s", strings.Join(words, ", "))
	if s != nil && i < len(s.NICs) {
		c := &s.NICs[i]
		d.row("", "received %d, %s, %d dropped; sent %d, %s, %d dropped", c.RxPackets, scaled.Format(c.RxBytes), c.RxDrops,
			c.TxPackets, scaled.Format(c.TxBytes), c.TxDrops)
	}
}

func (d *details) counters(s *vmop.Stats) {
	var vcpus []string
	for _, ns := range s.VCPU {
		vcpus = append(vcpus, inSeconds(ns))
	}
	d.row("cpu time", "%s, vcpus %s", inSeconds(s.CPU), strings.Join(vcpus, " "))
	d.row("exits", "%d: %d port, %d mmio, %d interrupted, %d other", exits(s), exitsOf(s, vmop.ExitPIO),
		exitsOf(s, vmop.ExitMMIO), exitsOf(s, vmop.ExitInterrupted), exitsOf(s, vmop.ExitOther))
}

// inSeconds is ns in seconds.
func inSeconds(ns uint64) string { return fmt.Sprintf("%.3fs", float64(ns)/1e9) }

// exitsOf is how many exits of a kind there were.
func exitsOf(s *vmop.Stats, kind int) uint64 {
	if kind < len(s.Exits) {
		return s.Exits[kind]
	}
	return 0
}

// exits is how many there were of all kinds.
func exits(s *vmop.Stats) uint64 {
	var n uint64
	for _, e := range s.Exits {
		n += e
	}
	return n
}

// inUse is how much of its memory a guest has touched.
func inUse(vm *vmop.VM, s *vmop.Stats) string {
	if vm.PID == 0 || s == nil || s.Memory == 0 {
		return ""
	}
	return ", " + scaled.Format(s.Memory) + " in use"
}

// since is the time from start to now, both nanoseconds of CLOCK_MONOTONIC.
func since(start, now int64) string {
	up := time.Duration(max(now-start, 0)).Truncate(time.Second)
	if days := up / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%s", days, up%(24*time.Hour))
	}
	return up.String()
}

func limits(l vmop.Limits) string {
	var words []string
	if l.CPUPercent > 0 {
		words = append(words, fmt.Sprintf("cpu %d%%", l.CPUPercent))
	}
	for _, b := range []struct {
		word string
		n    uint64
		per  string
	}{{"memory", l.MemoryHigh, ""}, {"read", l.IORead, "/s"}, {"write", l.IOWrite, "/s"}} {
		if b.n > 0 {
			words = append(words, b.word+" "+scaled.Format(b.n)+b.per)
		}
	}
	return strings.Join(words, ", ")
}

func definedBy(vm *vmop.VM) string {
	switch {
	case !vm.Persistent:
		return "by vmctl start, forgotten when it stops"
	case vm.Autostart:
		return "in the configuration, started with vmd"
	}
	return "in the configuration"
}

func encryption(e *vmop.Encryption) string {
	if e.ES {
		return "SEV-ES"
	}
	return "SEV"
}

func pendingChanges(vm *vmop.VM) string {
	if len(vm.Changes) == 0 {
		return "by the next start"
	}
	return plain(strings.Join(vm.Changes, ", ")) + ": by the next start"
}

// oneLine is plain without newlines.
func oneLine(s string) string { return strings.ReplaceAll(plain(s), "\n", " ") }
