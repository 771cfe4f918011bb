package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

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
	Address string `json:"address,omitempty"`
}

// writeJSON writes what the table does not have room for.
func writeJSON(w io.Writer, vms []vmop.VM, n *names) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return failf("read the clock: %s", strerror(err))
	}
	s := jsonStatus{Version: jsonVersion, VMs: make([]jsonVM, 0, len(vms))}
	for i := range vms {
		s.VMs = append(s.VMs, jsonOf(&vms[i], n, now.Nano()))
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return failf("write error: %s", strerror(err))
	}
	return nil
}

func jsonOf(vm *vmop.VM, n *names, now int64) jsonVM {
	v := jsonVM{
		ID: vm.ID, Name: vm.Name, UUID: uuid(vm.UUID), State: vm.State.String(),
		Persistent: vm.Persistent, Autostart: vm.Autostart, Changed: vm.Changed,
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
	for _, d := range vm.Disks {
		v.Disks = append(v.Disks, jsonDisk{d.Path, d.Format, d.ReadOnly, d.CDROM, known(d.Size), known(d.Used)})
	}
	for _, i := range vm.NICs {
		v.Interfaces = append(v.Interfaces, jsonNIC{net.HardwareAddr(i.MAC[:]).String(), i.Tap, i.IfIndex, i.Switch, i.Address})
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

// uuid is u in the form of RFC 9562, 4.
func uuid(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
