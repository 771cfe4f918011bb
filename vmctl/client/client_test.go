package client_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
	"vmd/vmctl/client/clienttest"
)

func connect(t testing.TB) (*clienttest.Server, *client.Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := clienttest.New(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return s, c
}

func putVMs(s *clienttest.Server, n int) {
	for i := range n {
		s.Put(vmop.VM{ID: uint32(i + 1), Name: "vm" + strconv.Itoa(i+1), State: vmop.Running, PID: 100 + i, TTY: "/dev/pts/1"})
	}
}

func TestList(t *testing.T) {
	s, c := connect(t)
	vms, err := c.List(t.Context(), vmop.ListRequest{})
	if err != nil || len(vms) != 0 {
		t.Errorf("no VMs: %v, %v", vms, err)
	}
	putVMs(s, 3*vmop.MaxRecords+1)
	vms, err = c.List(t.Context(), vmop.ListRequest{})
	if err != nil || len(vms) != 3*vmop.MaxRecords+1 || vms[vmop.MaxRecords].Name != "vm9" {
		t.Errorf("%d VMs, %v", len(vms), err)
	}
}

func TestEveryCall(t *testing.T) {
	s, c := connect(t)
	putVMs(s, 1)
	ctx, ref := t.Context(), vmop.Ref{ID: 1}
	calls := map[vmop.Type]func() error{
		vmop.Start: func() error {
			_, err := c.Start(ctx, vmop.StartRequest{VM: vmop.Ref{Name: "new"}, Define: &vmop.Definition{}})
			return err
		},
		vmop.Pause:   func() error { _, err := c.Pause(ctx, ref); return err },
		vmop.Unpause: func() error { _, err := c.Unpause(ctx, ref); return err },
		vmop.Break:   func() error { return c.Break(ctx, ref) },
		vmop.Log:     func() error { return c.Log(ctx, true) },
		vmop.Load:    func() error { return c.Load(ctx, "/etc/vm.conf") },
		vmop.Reload:  func() error { return c.Reload(ctx) },
		vmop.Reset:   func() error { return c.Reset(ctx, vmop.ResetRequest{VMs: true}) },
		vmop.Stop:    func() error { _, err := c.Stop(ctx, vmop.StopRequest{VM: vmop.Ref{Name: "new"}}); return err },
	}
	for _, typ := range []vmop.Type{vmop.Start, vmop.Pause, vmop.Unpause, vmop.Break, vmop.Log, vmop.Load, vmop.Reload, vmop.Reset, vmop.Stop} {
		if err := calls[typ](); err != nil {
			t.Errorf("request %d: %v", typ, err)
		}
		if got := s.Requests(); len(got) != 1 || got[0].Type != typ {
			t.Errorf("request %d arrived as %v", typ, got)
		}
		s.Answer(typ, vmop.Result{Code: vmop.ErrPermission, Detail: "no"})
		var e *client.Error
		if err := calls[typ](); !errors.As(err, &e) || e.Code != vmop.ErrPermission || e.Request != typ || e.Error() != "permission: no" {
			t.Errorf("request %d refused: %v", typ, err)
		}
		s.Requests()
	}
}

func TestStartPassesFiles(t *testing.T) {
	s, c := connect(t)
	f, err := os.Open("client_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Start(t.Context(), vmop.StartRequest{VM: vmop.Ref{Name: "a"}, Define: &vmop.Definition{}, Files: []string{"kernel"}}, f)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Requests(); len(got) != 1 || len(got[0].Files) != 1 || got[0].Files[0][:19] != "package client_test" {
		t.Errorf("vmd got %v", got)
	}
}

func TestConsole(t *testing.T) {
	s, c := connect(t)
	putVMs(s, 1)
	conn, res, err := c.Console(t.Context(), vmop.ConsoleRequest{VM: vmop.Ref{ID: 1}})
	if err != nil || res.TTY != "/dev/pts/1" {
		t.Fatalf("%+v, %v", res, err)
	}
	defer conn.Close()
	c.Close() // the stream lives on
	io.WriteString(conn, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	s.Stopped("vm1")
	if n, err := conn.Read(b); n != 0 || err != io.EOF {
		t.Errorf("%d, %v; want EOF", n, err)
	}
}

// An answer without the stream that belongs to it is not taken.
func TestConsoleWithoutStream(t *testing.T) {
	s, c := connect(t)
	s.Answer(vmop.Console, vmop.Result{})
	if _, _, err := c.Console(t.Context(), vmop.ConsoleRequest{}); !errors.Is(err, client.ErrUnexpected) {
		t.Errorf("%v, want ErrUnexpected", err)
	}
}

// Many requests at once each get their own answer.
func TestConcurrent(t *testing.T) {
	s, c := connect(t)
	putVMs(s, 50)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			id := uint32(i + 1)
			if res, err := c.Pause(t.Context(), vmop.Ref{ID: id}); err != nil || res.ID != id {
				t.Errorf("pause %d: %+v, %v", id, res, err)
			}
		})
	}
	wg.Wait()
}

func TestWaitIsCancelled(t *testing.T) {
	s, c := connect(t)
	putVMs(s, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { s.Await(vmop.Wait); cancel() }()
	if _, err := c.Wait(ctx, vmop.WaitRequest{VM: vmop.Ref{ID: 1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
	s.Stopped("vm1") // answered too late; the next request is not disturbed
	if err := c.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDaemonDies(t *testing.T) {
	s, c := connect(t)
	putVMs(s, 1)
	go func() { s.Await(vmop.Wait); s.Hangup() }()
	if _, err := c.Wait(t.Context(), vmop.WaitRequest{VM: vmop.Ref{ID: 1}}); !errors.Is(err, client.ErrGone) {
		t.Errorf("%v, want ErrGone", err)
	}
	if err := c.Reload(t.Context()); !errors.Is(err, client.ErrGone) {
		t.Errorf("afterwards: %v, want ErrGone", err)
	}
}

func TestTurnedAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := clienttest.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.TurnAway(vmop.Result{Code: vmop.ErrBusy, Detail: "too many clients"})
	c, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var e *client.Error
	if err := c.Reload(t.Context()); !errors.As(err, &e) || e.Code != vmop.ErrBusy || e.Detail != "too many clients" {
		t.Errorf("%v, want busy", err)
	}
}

func TestDialFails(t *testing.T) {
	if _, err := client.Dial(t.Context(), filepath.Join(t.TempDir(), "s")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
}

func TestSocketPath(t *testing.T) {
	t.Setenv(client.SocketVar, "")
	if p := client.SocketPath(); p != "/run/vmd.sock" {
		t.Errorf("path %s", p)
	}
	t.Setenv(client.SocketVar, "/x")
	if p := client.SocketPath(); p != "/x" {
		t.Errorf("path %s", p)
	}
}

func BenchmarkList1000(b *testing.B) {
	s, c := connect(b)
	putVMs(s, 1000)
	for b.Loop() {
		if vms, err := c.List(b.Context(), vmop.ListRequest{}); err != nil || len(vms) != 1000 {
			b.Fatal(len(vms), err)
		}
	}
}
