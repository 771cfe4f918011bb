package cmd

import (
	"encoding/hex"
	"encoding/json"
	"io"

	"vmd/internal/notation"
	"vmd/internal/vmop"
)

// jsonVersion is the version of the form below: it changes when a field
// changes its meaning or goes, not when one is added. vmctl(8) describes it.
const jsonVersion = 1

type jsonStatus struct {
	Version int      `json:"version"`
	VMs     []jsonVM `json:"vms"`
}

type jsonVM struct {
	ID         uint32     `json:"id"`
	Name       string     `json:"name"`
	UUID       string     `json:"uuid"`
	State      string     `json:"state"`
	Persistent bool       `json:"persistent"`
	Autostart  bool       `json:"autostart"`
	Changed    bool       `json:"changed"`
	Changes    []string   `json:"changes,omitempty"`
	CPUs       int        `json:"cpus"`
	Memory     uint64     `json:"memory"`
	Resident   uint64     `json:"resident"`
	PID        int        `json:"pid,omitempty"`
	TTY        string     `json:"tty,omitempty"`
	Uptime     float64    `json:"uptime,omitempty"`
	Owner      jsonOwner  `json:"owner"`
	LastExit   string     `json:"last_exit,omitempty"`
	Disks      []jsonDisk `json:"disks"`
	Interfaces []jsonNIC  `json:"interfaces"`

	Encryption *jsonEncryption `json:"encryption,omitempty"`

	Limits   *jsonLimits   `json:"limits,omitempty"`
	Counters *jsonCounters `json:"counters,omitempty"`
}

type jsonEncryption struct {
	Kind   string `json:"kind"`
	Digest string `json:"digest"`
}

type jsonLimits struct {
	CPU    int    `json:"cpu_percent,omitempty"`
	Memory uint64 `json:"memory_high,omitempty"`
	Read   uint64 `json:"read,omitempty"`
	Write  uint64 `json:"write,omitempty"`
}

type jsonOwner struct {
	UID   uint32 `json:"uid"`
	User  string `json:"user"`
	GID   *int64 `json:"gid,omitempty"`
	Group string `json:"group,omitempty"`
}

type jsonDisk struct {
	Path     string `json:"path"`
	Format   string `json:"format"`
	ReadOnly bool   `json:"read_only"`
	CDROM    bool   `json:"cdrom"`
	Size     *int64 `json:"size,omitempty"`
	Used     *int64 `json:"used,omitempty"`
}

type jsonNIC struct {
	MAC     string `json:"mac"`
	Tap     string `json:"tap,omitempty"`
	IfIndex int    `json:"ifindex,omitempty"`
	Switch  string `json:"switch,omitempty"`
	Local   bool   `json:"local"`
	Address string `json:"address,omitempty"`
	Host    string `json:"host_address,omitempty"`
}

// jsonCounters are those of the present run. They grow; times are nanoseconds.
type jsonCounters struct {
	Time     int64          `json:"time"`
	CPU      uint64         `json:"cpu"`
	VCPUs    []uint64       `json:"vcpus"`
	Memory   uint64         `json:"memory"`
	Resident uint64         `json:"resident"`
	Exits    jsonExits      `json:"exits"`
	Disks    []jsonDiskIO   `json:"disks"`
	NICs     []jsonNICStats `json:"interfaces"`
}

type jsonExits struct {
	Total       uint64 `json:"total"`
	PIO         uint64 `json:"pio"`
	MMIO        uint64 `json:"mmio"`
	Interrupted uint64 `json:"interrupted"`
	Other       uint64 `json:"other"`
}

type jsonDiskIO struct {
	ReadOps    uint64 `json:"read_ops"`
	ReadBytes  uint64 `json:"read_bytes"`
	ReadNanos  uint64 `json:"read_time"`
	WriteOps   uint64 `json:"write_ops"`
	WriteBytes uint64 `json:"write_bytes"`
	WriteNanos uint64 `json:"write_time"`
	FlushOps   uint64 `json:"flush_ops"`
	Errors     uint64 `json:"errors"`
}

type jsonNICStats struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	RxDrops   uint64 `json:"rx_drops"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxDrops   uint64 `json:"tx_drops"`
}

func countersOf(s *vmop.Stats) *jsonCounters {
	if s == nil {
		return nil
	}
	c := &jsonCounters{
		Time: s.Time, CPU: s.CPU, VCPUs: append([]uint64{}, s.VCPU...), Memory: s.Memory, Resident: s.Resident,
		Exits: jsonExits{
			exits(s), exitsOf(s, vmop.ExitPIO), exitsOf(s, vmop.ExitMMIO), exitsOf(s, vmop.ExitInterrupted), exitsOf(s, vmop.ExitOther),
		},
		Disks: []jsonDiskIO{}, NICs: []jsonNICStats{},
	}
	for _, d := range s.Disks {
		c.Disks = append(c.Disks, jsonDiskIO{
			d.ReadOps, d.ReadBytes, d.ReadNanos, d.WriteOps, d.WriteBytes, d.WriteNanos, d.FlushOps, d.Errors,
		})
	}
	for _, n := range s.NICs {
		c.NICs = append(c.NICs, jsonNICStats(n))
	}
	return c
}

// writeJSON writes what the table does not have room for.
func writeJSON(w io.Writer, vms []vmop.VM, stats map[uint32]*vmop.Stats, n *names) error {
	now := monotonic()
	s := jsonStatus{Version: jsonVersion, VMs: make([]jsonVM, 0, len(vms))}
	for i := range vms {
		v := jsonOf(&vms[i], n, now)
		v.Counters = countersOf(stats[vms[i].ID])
		s.VMs = append(s.VMs, v)
	}
	return encodeJSON(w, s, "  ")
}

// encodeJSON writes v, on one line if indent is empty.
func encodeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return failf("write error: %s", strerror(err))
	}
	return nil
}

func jsonOf(vm *vmop.VM, n *names, now int64) jsonVM {
	v := jsonVM{
		ID: vm.ID, Name: vm.Name, UUID: notation.UUID(vm.UUID), State: vm.State.String(),
		Persistent: vm.Persistent, Autostart: vm.Autostart, Changed: vm.Changed, Changes: vm.Changes,
		CPUs: vm.CPUs, Memory: vm.MemoryBytes, Resident: vm.Resident, PID: vm.PID, TTY: vm.TTY,
		Owner:    jsonOwner{UID: vm.OwnerUID, User: n.user(vm.OwnerUID)},
		LastExit: vm.LastExit,
		Disks:    []jsonDisk{}, Interfaces: []jsonNIC{},
	}
	if vm.OwnerGID >= 0 {
		v.Owner.GID, v.Owner.Group = &vm.OwnerGID, n.group(vm.OwnerGID)
	}
	if vm.Started > 0 && now > vm.Started {
		v.Uptime = float64((now-vm.Started)/1e6) / 1e3
	}
	if e := vm.Encryption; e != nil {
		v.Encryption = &jsonEncryption{encryption(e), hex.EncodeToString(e.Digest[:])}
	}
	if vm.Limits != (vmop.Limits{}) {
		v.Limits = &jsonLimits{vm.Limits.CPUPercent, vm.Limits.MemoryHigh, vm.Limits.IORead, vm.Limits.IOWrite}
	}
	for _, d := range vm.Disks {
		v.Disks = append(v.Disks, jsonDisk{d.Path, d.Format, d.ReadOnly, d.CDROM, known(d.Size), known(d.Used)})
	}
	for _, i := range vm.NICs {
		v.Interfaces = append(v.Interfaces, jsonNIC{notation.MAC(i.MAC), i.Tap, i.IfIndex, i.Switch, i.Local, i.Address, i.HostAddress})
	}
	return v
}

// known is n, or nil when it stands for a size that is not known.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}
