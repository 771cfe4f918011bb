package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// simple is a request whose answer is a Result and nothing else.
func (c *Client) simple(ctx context.Context, typ vmop.Type, req any, files ...*os.File) (vmop.Result, error) {
	r, got, err := c.do(ctx, typ, req, files, nil)
	(&imsg.Msg{Files: got}).Close()
	return r, err
}

// List returns the VMs that r asks for, in vmd's order.
func (c *Client) List(ctx context.Context, r vmop.ListRequest) ([]vmop.VM, error) {
	var vms []vmop.VM
	err := c.parts(ctx, vmop.List, r, vmop.Records, func(b []byte) error {
		var l vmop.VMList
		err := imsg.UnmarshalNewer(b, &l)
		vms = append(vms, l.VMs...)
		return err
	})
	return vms, err
}

// Stats returns the counters of the VM that ref names, or of all, if they have
// a process.
func (c *Client) Stats(ctx context.Context, ref vmop.Ref) ([]vmop.Stats, error) {
	var all []vmop.Stats
	err := c.parts(ctx, vmop.Count, vmop.StatsRequest{VM: ref}, vmop.Counted, func(b []byte) error {
		var l vmop.StatsList
		err := imsg.UnmarshalNewer(b, &l)
		all = append(all, l.VMs...)
		return err
	})
	return all, err
}

// parts makes a request that is answered in parts, messages of type part whose
// payloads add takes.
func (c *Client) parts(ctx context.Context, typ vmop.Type, r any, part vmop.Type, add func([]byte) error) error {
	_, files, err := c.do(ctx, typ, r, nil, func(m *imsg.Msg) error {
		if vmop.Type(m.Type) != part {
			return ErrUnexpected
		}
		if err := add(m.Payload); err != nil {
			return fmt.Errorf("%w: %w", ErrUnexpected, err)
		}
		return nil
	})
	(&imsg.Msg{Files: files}).Close()
	return err
}

// Start starts a VM. files are those that r.Files names; they are taken over.
func (c *Client) Start(ctx context.Context, r vmop.StartRequest, files ...*os.File) (vmop.Result, error) {
	return c.simple(ctx, vmop.Start, r, files...)
}

// Stop stops a VM.
func (c *Client) Stop(ctx context.Context, r vmop.StopRequest) (vmop.Result, error) {
	return c.simple(ctx, vmop.Stop, r)
}

// Wait returns when a VM has stopped, or is in the state that r asks for.
func (c *Client) Wait(ctx context.Context, r vmop.WaitRequest) (vmop.Result, error) {
	return c.simple(ctx, vmop.Wait, r)
}

// Pause stops a VM's vCPUs.
func (c *Client) Pause(ctx context.Context, vm vmop.Ref) (vmop.Result, error) {
	return c.simple(ctx, vmop.Pause, vmop.VMRequest{VM: vm})
}

// Unpause lets a paused VM run on.
func (c *Client) Unpause(ctx context.Context, vm vmop.Ref) (vmop.Result, error) {
	return c.simple(ctx, vmop.Unpause, vmop.VMRequest{VM: vm})
}

// Break sends a BREAK to a VM's first serial port.
func (c *Client) Break(ctx context.Context, vm vmop.Ref) error {
	_, err := c.simple(ctx, vmop.Break, vmop.VMRequest{VM: vm})
	return err
}

// Console returns a stream to and from a VM's first serial port. It ends when
// the VM does, and outlives the Client.
func (c *Client) Console(ctx context.Context, r vmop.ConsoleRequest) (net.Conn, vmop.Result, error) {
	res, files, err := c.do(ctx, vmop.Console, r, nil, nil)
	m := imsg.Msg{Files: files}
	defer m.Close()
	if err != nil {
		return nil, res, err
	}
	if len(files) != 1 {
		return nil, res, ErrUnexpected
	}
	conn, err := net.FileConn(files[0])
	if err != nil {
		return nil, res, fmt.Errorf("use descriptor as console: %w", errors.Join(ErrUnexpected, err))
	}
	return conn, res, nil
}

// Send moves a VM to another host by way of stream, a socket that is taken over:
// PROTOCOL.md says what goes through it. It returns when the guest has gone, or
// is known not to have.
func (c *Client) Send(ctx context.Context, r vmop.SendRequest, stream *os.File) (vmop.Result, error) {
	return c.simple(ctx, vmop.Send, r, stream)
}

// Receive takes in a guest that comes by way of stream.
func (c *Client) Receive(ctx context.Context, r vmop.ReceiveRequest, stream *os.File) (vmop.Result, error) {
	return c.simple(ctx, vmop.Receive, r, stream)
}

// Log sets how much vmd logs.
func (c *Client) Log(ctx context.Context, verbose bool) error {
	_, err := c.simple(ctx, vmop.Log, vmop.LogRequest{Verbose: verbose})
	return err
}

// Load adds the definitions of a configuration file, named by an absolute path.
func (c *Client) Load(ctx context.Context, path string) error {
	_, err := c.simple(ctx, vmop.Load, vmop.LoadRequest{Path: path})
	return err
}

// Reload reads vmd's configuration file again.
func (c *Client) Reload(ctx context.Context) error {
	_, err := c.simple(ctx, vmop.Reload, nil)
	return err
}

// Reset forgets VMs, switches, or both.
func (c *Client) Reset(ctx context.Context, r vmop.ResetRequest) error {
	_, err := c.simple(ctx, vmop.Reset, r)
	return err
}
