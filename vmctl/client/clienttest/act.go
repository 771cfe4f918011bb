package clienttest

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// act does what a request asks, on records, and answers it. s.mu is held.
func (s *Server) act(conn *imsg.Conn, id uint64, typ vmop.Type, body any) error {
	answer := func(r vmop.Result) error { return send(conn, vmop.Answer, id, r) }
	switch r := body.(type) {
	case *vmop.ListRequest:
		return s.list(conn, id, r)
	case *vmop.StatsRequest:
		return s.count(conn, id, r)
	case *vmop.StartRequest:
		return answer(s.start(r))
	case *vmop.StopRequest:
		return s.stop(conn, id, r)
	case *vmop.WaitRequest:
		return s.wait(conn, id, r)
	case *vmop.VMRequest:
		return answer(s.change(typ, r.VM))
	case *vmop.ConsoleRequest:
		return s.attach(conn, id, r)
	}
	return answer(vmop.Result{})
}

func (s *Server) list(conn *imsg.Conn, id uint64, r *vmop.ListRequest) error {
	var vms []vmop.VM
	for _, vm := range s.vms {
		asked := r.VM == vmop.Ref{} || r.VM.ID == vm.ID || r.VM.ID == 0 && r.VM.Name == vm.Name
		if asked && (!r.Running || vm.PID != 0) {
			vms = append(vms, vm)
		}
	}
	for some := range slices.Chunk(vms, vmop.MaxRecords) {
		if err := send(conn, vmop.Records, id, vmop.VMList{VMs: some}); err != nil {
			return err
		}
	}
	return send(conn, vmop.Answer, id, vmop.Result{})
}

// count answers with the next counters of each VM; the last stay.
func (s *Server) count(conn *imsg.Conn, id uint64, r *vmop.StatsRequest) error {
	var all []vmop.Stats
	for _, vm := range s.vms {
		asked := r.VM == vmop.Ref{} || r.VM.ID == vm.ID || r.VM.ID == 0 && r.VM.Name == vm.Name
		set := s.stats[vm.ID]
		if !asked || vm.PID == 0 || len(set) == 0 {
			continue
		}
		one := set[0]
		if len(set) > 1 {
			s.stats[vm.ID] = set[1:]
		}
		one.ID, one.Name, one.State, one.CPUs, one.Started = vm.ID, vm.Name, vm.State, vm.CPUs, vm.Started
		all = append(all, one)
	}
	if r.VM != (vmop.Ref{}) && s.find(r.VM) == nil {
		return send(conn, vmop.Answer, id, vmop.Result{Code: vmop.ErrNotFound})
	}
	for some := range slices.Chunk(all, vmop.MaxRecords) {
		if err := send(conn, vmop.Counted, id, vmop.StatsList{VMs: some}); err != nil {
			return err
		}
	}
	return send(conn, vmop.Answer, id, vmop.Result{})
}

// wait answers when a VM stops, or at once if it is what r waits for.
func (s *Server) wait(conn *imsg.Conn, id uint64, r *vmop.WaitRequest) error {
	vm := s.find(r.VM)
	code := stoppable(vm)
	if r.For != vmop.WaitEnd && code == vmop.ErrNotRunning {
		code = vmop.OK
	}
	if code != vmop.OK {
		return send(conn, vmop.Answer, id, vmop.Result{Code: code})
	}
	is := map[vmop.WaitFor]vmop.State{vmop.WaitRunning: vmop.Running, vmop.WaitStopped: vmop.Stopped, vmop.WaitCrashed: vmop.Crashed}
	if want, ok := is[r.For]; ok && vm.State == want {
		return send(conn, vmop.Answer, id, vmop.Result{ID: vm.ID, Name: vm.Name})
	}
	s.waiting = append(s.waiting, waiter{conn, id, vm.ID})
	return nil
}

// start starts a VM that is there, or makes one if r defines it.
func (s *Server) start(r *vmop.StartRequest) vmop.Result {
	vm := s.find(r.VM)
	switch {
	case vm == nil && r.Define == nil && r.Template == "":
		return vmop.Result{Code: vmop.ErrNotFound}
	case vm == nil:
		s.vms = append(s.vms, vmop.VM{ID: uint32(len(s.vms) + 1), Name: r.VM.Name, CPUs: 1, MemoryBytes: 512 << 20})
		vm = &s.vms[len(s.vms)-1]
	case vm.PID != 0:
		return vmop.Result{Code: vmop.ErrRunning, ID: vm.ID, Name: vm.Name}
	}
	vm.State, vm.PID, vm.TTY = vmop.Running, 1000+int(vm.ID), fmt.Sprintf("/dev/pts/%d", vm.ID)
	return vmop.Result{ID: vm.ID, Name: vm.Name, TTY: vm.TTY}
}

func stoppable(vm *vmop.VM) vmop.Code {
	switch {
	case vm == nil:
		return vmop.ErrNotFound
	case vm.PID == 0:
		return vmop.ErrNotRunning
	}
	return vmop.OK
}

func (s *Server) stop(conn *imsg.Conn, id uint64, r *vmop.StopRequest) error {
	vm := s.find(r.VM)
	code := stoppable(vm)
	if code == vmop.OK && vm.State == vmop.Stopping && !r.Force {
		code = vmop.ErrStopping
	}
	if code != vmop.OK {
		return send(conn, vmop.Answer, id, vmop.Result{Code: code})
	}
	done := vmop.Result{ID: vm.ID, Name: vm.Name}
	vm.State = vmop.Stopping
	if r.Force || r.Wait { // a guest that obeys at once
		s.stopped(vm)
	}
	return send(conn, vmop.Answer, id, done)
}

func (s *Server) change(typ vmop.Type, ref vmop.Ref) vmop.Result {
	vm := s.find(ref)
	if code := stoppable(vm); code != vmop.OK {
		return vmop.Result{Code: code}
	}
	switch typ {
	case vmop.Pause:
		vm.State = vmop.Paused
	case vmop.Unpause:
		vm.State = vmop.Running
	}
	return vmop.Result{ID: vm.ID, Name: vm.Name}
}

func (s *Server) attach(conn *imsg.Conn, id uint64, r *vmop.ConsoleRequest) error {
	vm := s.find(r.VM)
	if code := stoppable(vm); code != vmop.OK {
		return send(conn, vmop.Answer, id, vmop.Result{Code: code})
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "guest"), os.NewFile(uintptr(fds[1]), "client")
	guest, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		theirs.Close()
		return err
	}
	s.consoles = append(s.consoles, guest)
	serve := s.console
	if serve == nil {
		serve = func(_ vmop.VM, c net.Conn) { io.Copy(c, c) }
	}
	go serve(*vm, guest)
	return send(conn, vmop.Answer, id, vmop.Result{ID: vm.ID, Name: vm.Name, TTY: vm.TTY}, theirs)
}
