package vm

import (
	"net"
	"os"

	"vmd/internal/counters"
	"vmd/internal/imsg"
	"vmd/internal/logging"
	"vmd/internal/vmop"
)

// handle carries out what the manager wants.
func (v *vm) handle(m imsg.Msg) {
	if v.incoming != nil && vmop.Type(m.Type) != vmop.SetLog {
		// Nothing can be asked of a guest that has not come, but its end.
		if vmop.Type(m.Type) == vmop.VMStop {
			v.incoming.stopped = true
			v.incoming.end()
		}
		return
	}
	switch vmop.Type(m.Type) {
	case vmop.VMStop:
		decode(v, m, v.stop)
	case vmop.VMPause:
		decode(v, m, v.pauseGuest)
	case vmop.VMUnpause:
		decode(v, m, v.unpause)
	case vmop.VMSend:
		decode(v, m, func(r vmop.VMSendRequest) { v.send(r, m.TakeFile(0)) })
	case vmop.VMAbort:
		if v.outgoing != nil {
			v.outgoing.abort()
		}
	case vmop.VMBreak:
		v.machine.Break()
	case vmop.VMConsole:
		decode(v, m, func(r vmop.VMConsoleRequest) {
			if f := m.TakeFile(0); f != nil {
				v.console.attach(f, r.ReadOnly, !r.NoReplay)
			}
		})
	case vmop.SetLog:
		decode(v, m, func(r vmop.LogRequest) { v.Log = v.Log.Level(logging.Level(r.Verbose)) })
	default:
		v.Log.Error().Uint16("type", m.Type).Msg("unknown message")
	}
}

// decode calls f with the payload of m.
func decode[T any](v *vm, m imsg.Msg, f func(T)) {
	var r T
	if err := imsg.Unmarshal(m.Payload, &r); err != nil {
		v.Log.Error().Err(err).Uint16("type", m.Type).Msg("bad message")
		return
	}
	f(r)
}

// tell sends an event to the manager, if there is one.
func (v *vm) tell(kind vmop.EventKind, code vmop.Code, err error) {
	e := vmop.Event{Kind: kind, Code: code}
	if err != nil {
		e.Detail = err.Error()
	}
	v.report(e)
}

// report sends e, which happened now, to the manager, if there is one.
func (v *vm) report(e vmop.Event) {
	if v.manager != nil {
		e.ID, e.Time = v.spec.ID, counters.Monotonic()
		v.manager.Send(uint16(vmop.VMEvent), 0, e)
	}
}

// listen accepts whoever connects to the process's own socket: only root can
// reach it, and does when the vmm before is gone.
func (v *vm) listen() {
	f := v.files.take("listen")
	if f == nil {
		return
	}
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		v.Log.Error().Err(err).Msg("cannot listen for a later vmm")
		return
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := imsg.NewConn(c.(*net.UnixConn))
			v.Loop.Post(func() { v.adopt(conn) })
		}
	}()
}

// adopt makes conn the manager, in place of whoever was, and tells it who we
// are.
func (v *vm) adopt(conn *imsg.Conn) {
	if v.manager != nil {
		v.manager.Close()
	}
	v.manager = conn
	if v.outgoing != nil { // whoever asked for it is not there to be told
		v.outgoing.abort()
	}
	h := vmop.Hello{Definition: v.spec, PID: os.Getpid(), Started: v.started, State: v.state}
	var fds []*os.File
	for _, name := range []string{"counters", "tty", "ttyslave"} {
		f, err := v.files.dup(name)
		if err != nil {
			v.Log.Error().Err(err).Str("what", name).Msg("cannot be shared with the new vmm")
		} else if f != nil {
			h.Files, fds = append(h.Files, name), append(fds, f)
		}
	}
	conn.Send(uint16(vmop.VMHello), 0, h, fds...)
	if v.sent {
		v.tellSent()
	}
	v.Loop.Read(conn, v.handle, v.orphaned(conn))
}

// orphaned notes that the manager c is gone. The guest runs on.
func (v *vm) orphaned(c *imsg.Conn) func(error) {
	return func(error) {
		if v.manager == c {
			v.manager = nil
			if v.outgoing != nil {
				v.outgoing.abort()
			}
			v.Log.Warn().Msg("manager is gone; guest runs on")
		}
	}
}
