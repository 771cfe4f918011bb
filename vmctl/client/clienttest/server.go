// Package clienttest is a vmd that lives in a test: a real control socket, a
// few VMs that are no more than records, and answers that a test can set.
package clienttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// Request is one that the Server got. Body is nil for a request without one.
type Request struct {
	Type  vmop.Type
	Body  any
	Files []string // the first 64 bytes of each descriptor's file
}

// Server plays vmd.
type Server struct {
	listener *net.UnixListener

	mu       sync.Mutex
	asked    *sync.Cond // requests has grown, and the request has been acted on
	vms      []vmop.VM
	stats    map[uint32][]vmop.Stats
	requests []Request
	set      map[vmop.Type][]vmop.Result
	silent   map[vmop.Type]bool
	greeting *vmop.Result
	conns    []*imsg.Conn
	waiting  []waiter
	consoles []net.Conn
	console  func(vm vmop.VM, c net.Conn)
	stream   func(body any, c net.Conn) vmop.Result
}

// waiter is a request that is answered when a VM has stopped.
type waiter struct {
	conn *imsg.Conn
	id   uint64
	vm   uint32
}

// New listens at path. The Server has no VMs.
func New(path string) (*Server, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, stats: make(map[uint32][]vmop.Stats), set: make(map[vmop.Type][]vmop.Result), silent: make(map[vmop.Type]bool)}
	s.asked = sync.NewCond(&s.mu)
	go s.accept()
	return s, nil
}

// Close ends the Server, its connections and its consoles.
func (s *Server) Close() {
	s.listener.Close()
	s.Hangup()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.consoles {
		c.Close()
	}
}

// Hangup ends all connections of clients.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// Put defines vm, in place of one of the same number.
func (s *Server) Put(vm vmop.VM) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.vms, func(v vmop.VM) bool { return v.ID == vm.ID })
	if i < 0 {
		s.vms = append(s.vms, vm)
		return
	}
	s.vms[i] = vm
}

// PutStats gives VM id counters: the answer to the next Count, after those that
// were put before.
func (s *Server) PutStats(id uint32, st vmop.Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats[id] = append(s.stats[id], st)
}

// VM returns the VM called name.
func (s *Server) VM(name string) (vmop.VM, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if vm := s.find(vmop.Ref{Name: name}); vm != nil {
		return *vm, true
	}
	return vmop.VM{}, false
}

// Answer makes r the answer to the next request of type typ.
func (s *Server) Answer(typ vmop.Type, r vmop.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set[typ] = append(s.set[typ], r)
}

// Silent makes the Server hang up instead of answering requests of type typ.
func (s *Server) Silent(typ vmop.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[typ] = true
}

// TurnAway makes the Server greet every client with r and hang up.
func (s *Server) TurnAway(r vmop.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greeting = &r
}

// OnConsole makes f serve consoles, each on a goroutine of its own. Without it,
// a console sends back what it gets.
func (s *Server) OnConsole(f func(vm vmop.VM, c net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.console = f
}

// OnStream makes f answer requests to send or to receive, whose body is given,
// each on a goroutine of its own. c is the stream, which ends when f returns.
func (s *Server) OnStream(f func(body any, c net.Conn) vmop.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream = f
}

// Requests returns what the Server was asked since the last call.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests = nil
	return r
}

// Await returns when there has been a request of type typ since the last call
// of Requests.
func (s *Server) Await(typ vmop.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !slices.ContainsFunc(s.requests, func(r Request) bool { return r.Type == typ }) {
		s.asked.Wait()
	}
}

// Stopped makes the VM called name stop, as if its guest had.
func (s *Server) Stopped(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if vm := s.find(vmop.Ref{Name: name}); vm != nil {
		s.stopped(vm)
	}
}

// Reset makes the guest of the VM called name reset: the VM gets another
// process, and its consoles end.
func (s *Server) Reset(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if vm := s.find(vmop.Ref{Name: name}); vm != nil {
		vm.PID++
	}
	for _, c := range s.consoles {
		c.Close()
	}
	s.consoles = nil
}

// stopped makes vm stop. s.mu is held.
func (s *Server) stopped(vm *vmop.VM) {
	vm.State, vm.PID, vm.TTY, vm.Resident, vm.Started = vmop.Stopped, 0, "", 0, 0
	left := s.waiting[:0]
	for _, w := range s.waiting {
		if w.vm != vm.ID {
			left = append(left, w)
			continue
		}
		send(w.conn, vmop.Answer, w.id, vmop.Result{ID: vm.ID, Name: vm.Name})
	}
	s.waiting = left
	for _, c := range s.consoles {
		c.Close()
	}
	s.consoles = nil
}

// find returns the VM that r names. s.mu is held.
func (s *Server) find(r vmop.Ref) *vmop.VM {
	for i := range s.vms {
		if vm := &s.vms[i]; r.ID != 0 && vm.ID == r.ID || r.ID == 0 && vm.Name == r.Name {
			return vm
		}
	}
	return nil
}

func (s *Server) accept() {
	for {
		sock, err := s.listener.AcceptUnix()
		if err != nil {
			return
		}
		conn := imsg.NewConn(sock)
		s.mu.Lock()
		greeting := s.greeting
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		if greeting != nil {
			send(conn, vmop.Answer, 0, *greeting)
			conn.Flush()
			continue
		}
		go s.serve(conn)
	}
}

func (s *Server) serve(conn *imsg.Conn) {
	defer conn.Close()
	for {
		m, err := conn.Recv()
		if err != nil {
			return
		}
		err = s.handle(conn, &m)
		m.Close()
		if err != nil {
			return
		}
	}
}

// errHangup makes serve end the connection.
var errHangup = errors.New("hang up")

func (s *Server) handle(conn *imsg.Conn, m *imsg.Msg) error {
	typ := vmop.Type(m.Type)
	body, err := decode(typ, m.Payload)
	if err != nil {
		return send(conn, vmop.Answer, m.ID, vmop.Result{Code: vmop.ErrInvalid, Detail: err.Error()})
	}
	var heads []string
	for _, f := range m.Files {
		b := make([]byte, 64)
		n, _ := f.ReadAt(b, 0)
		heads = append(heads, string(bytes.TrimRight(b[:n], "\x00")))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{Type: typ, Body: body, Files: heads})
	s.asked.Broadcast() // s.mu is free again when it has been acted on
	if s.silent[typ] {
		return errHangup
	}
	if set := s.set[typ]; len(set) > 0 {
		s.set[typ] = set[1:]
		return send(conn, vmop.Answer, m.ID, set[0])
	}
	if typ == vmop.Send || typ == vmop.Receive {
		return s.move(conn, m, body)
	}
	return s.act(conn, m.ID, typ, body)
}

// move has what OnStream gave answer m.
func (s *Server) move(conn *imsg.Conn, m *imsg.Msg, body any) error {
	f, serve, id := m.TakeFile(0), s.stream, m.ID
	if f == nil || serve == nil {
		return send(conn, vmop.Answer, id, vmop.Result{Code: vmop.ErrInvalid, Detail: "no stream"})
	}
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return err
	}
	go func() {
		res := serve(body, c)
		c.Close()
		send(conn, vmop.Answer, id, res)
	}()
	return nil
}

func send(conn *imsg.Conn, typ vmop.Type, id uint64, v any, files ...*os.File) error {
	return conn.Send(uint16(typ), id, v, files...)
}

// decode returns the payload of a request.
func decode(typ vmop.Type, payload []byte) (any, error) {
	kinds := map[vmop.Type]any{
		vmop.List: &vmop.ListRequest{}, vmop.Start: &vmop.StartRequest{}, vmop.Stop: &vmop.StopRequest{},
		vmop.Wait: &vmop.WaitRequest{}, vmop.Pause: &vmop.VMRequest{}, vmop.Unpause: &vmop.VMRequest{},
		vmop.Console: &vmop.ConsoleRequest{}, vmop.Break: &vmop.VMRequest{}, vmop.Log: &vmop.LogRequest{},
		vmop.Count: &vmop.StatsRequest{}, vmop.Load: &vmop.LoadRequest{}, vmop.Reload: nil, vmop.Reset: &vmop.ResetRequest{},
		vmop.Send: &vmop.SendRequest{}, vmop.Receive: &vmop.ReceiveRequest{},
	}
	v, ok := kinds[typ]
	if !ok {
		return nil, fmt.Errorf("no request has type %d", typ)
	}
	if v == nil {
		return nil, nil
	}
	return v, imsg.Unmarshal(payload, v)
}

// String is r as a line of JSON, for scripts to look at.
func (r Request) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Used is the storage that a file takes up, in bytes.
func Used(st os.FileInfo) int64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Blocks * 512
	}
	return st.Size()
}
