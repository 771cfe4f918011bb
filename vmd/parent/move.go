package parent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"vmd/hv/disk/qcow2"
	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// takeStream takes the socket of a Send or a Receive over from a client. Nobody
// but the VM's process ever reads it.
func takeStream(m *imsg.Msg) (map[string]*os.File, error) {
	if len(m.Files) != 1 {
		return nil, fmt.Errorf("%d descriptors came, and not one", len(m.Files))
	}
	typ, err := unix.GetsockoptInt(int(m.Files[0].Fd()), unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && typ != unix.SOCK_STREAM {
		err = errors.New("it is of another type")
	}
	if err != nil {
		return nil, fmt.Errorf("the descriptor is no stream socket: %w", err)
	}
	return map[string]*os.File{"stream": m.TakeFile(0)}, nil
}

// sendVM has a VM's process send its guest.
func (p *parent) sendVM(a registry.SendVM) {
	err := errors.New("its client has left")
	if q := p.pending[a.From.Request]; q != nil && q.files["stream"] != nil {
		f := q.files["stream"]
		q.files = nil
		err = p.send("vmm", vmop.VMSend, 0, vmop.VMSendRequest{ID: a.ID, Guest: a.Guest, MaxPause: a.MaxPause}, f)
	}
	if err != nil {
		state := vmop.Running
		if a.Guest.Paused {
			state = vmop.Paused
		}
		p.later(registry.VMEvent{Event: vmop.Event{
			ID: a.ID, Kind: vmop.EventSendFailed, Code: vmop.ErrUnavailable, Detail: err.Error(), State: state, Time: counters.Monotonic(),
		}})
	}
}

// incomingDisk is a disk of a guest that is being received: its sender holds the
// lock, until the VM's process can take it.
var incomingDisk = kind{what: "disk", code: vmop.ErrDisk, write: true, block: true, links: true, unlocked: true}

// openDisk opens disk i, or makes it if what is on it comes with a guest.
func (o *opener) openDisk(i int, name, path string) error {
	switch g := o.run.guest; {
	case g == nil:
		return o.openOne(name, path, diskFile)
	case g.WithDisks:
		return o.makeDisk(name, path, &g.Disks[i])
	}
	return o.openOne(name, path, incomingDisk)
}

// makeDisk makes an empty image for what comes with a guest. Nothing is ever
// overwritten.
func (o *opener) makeDisk(name, path string, d *vmop.GuestDisk) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &coded{vmop.ErrDisk, fmt.Errorf("make disk %q: %w", path, err)}
	}
	o.made = append(o.made, path)
	o.add(name, f)
	if d.Format == "qcow2" {
		err = qcow2.Create(f, qcow2.Options{Size: d.Size})
	} else {
		err = f.Truncate(d.Size)
	}
	if err == nil {
		err = diskFile.lock(f, path)
	}
	if err != nil {
		return &coded{vmop.ErrDisk, fmt.Errorf("make disk %q: %w", path, err)}
	}
	return nil
}

// unmake removes the images that were made for a guest that has not come.
func (r *run) unmake() {
	for _, path := range r.made {
		os.Remove(path)
	}
	r.made = nil
}
