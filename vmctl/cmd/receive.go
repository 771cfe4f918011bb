package cmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vmd/hv/state"
	"vmd/internal/vmop"
)

func (t *tool) receiveCmd() *cobra.Command {
	var o receiveOptions
	c := &cobra.Command{
		Use:   "receive [--confirm] [-d path] name",
		Short: "take in a VM that another host sends",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			if ref.Name == "" {
				return failf("invalid vm name\n%s: invalid id: %s", progName, args[0])
			}
			o.name = ref.Name
			return t.receive(c.Context(), &o)
		},
	}
	c.Flags().BoolVar(&o.confirm, "confirm", false, "")
	add(c.Flags(), "disk", "d", func(word string) error {
		if len(o.disks) == maxDisks {
			return failf("too many disks")
		}
		o.disks = append(o.disks, word)
		return nil
	})
	return c
}

type receiveOptions struct {
	name    string
	disks   []string
	confirm bool
}

// receive reads a VM from the input and has vmd run it.
func (t *tool) receive(ctx context.Context, o *receiveOptions) error {
	if err := checkName(o.name, "vm name too long", "invalid VM name"); err != nil {
		return err
	}
	tty, err := openTerminal(t.in)
	if err != nil || tty != nil {
		return failf("a VM cannot be typed: read it from a file, or from vmctl send")
	}
	if o.confirm && onTerminal(t.out) {
		return failf("a terminal does not understand confirmations: have vmctl send --confirm read them")
	}
	signal.Ignore(unix.SIGPIPE)
	req := vmop.ReceiveRequest{Name: o.name}
	if req.Disks, err = receivePaths(o.disks); err != nil {
		return err
	}
	var head bytes.Buffer // what has been read of the input to find the guest in it
	if req.Guest, err = readGuest(io.TeeReader(t.in, &head)); err != nil {
		return err
	}
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	ours, theirs, err := streamPair()
	if err != nil {
		return failf("receive vm command failed: %s", strerror(err))
	}
	defer ours.Close()
	words := make(chan struct{})
	go func() {
		t.passWords(ours, o.confirm)
		close(words)
	}()
	go func() {
		if _, err := io.Copy(ours, io.MultiReader(&head, t.in)); err == nil {
			ours.CloseWrite()
		}
	}()
	res, err := c.Receive(ctx, req, theirs)
	if err != nil {
		return startFailed("receive", err)
	}
	<-words // which the sender waits for
	t.warn("started vm %d successfully, tty %s", res.ID, plain(res.TTY))
	return nil
}

// receivePaths are the paths of disks as vmd can use them. They need not exist:
// those of a VM that comes with its disks must not.
func receivePaths(args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		path, err := filepath.Abs(arg)
		if err == nil {
			var dir string
			if dir, err = absolute(filepath.Dir(path)); err == nil {
				path = filepath.Join(dir, filepath.Base(path))
			}
		}
		if err != nil {
			return nil, failf("invalid disk path: %s: %s", arg, strerror(err))
		}
		if len(path) > maxPath {
			return nil, failf("disk path too long")
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// readGuest reads the first section of a stream.
func readGuest(in io.Reader) (vmop.Guest, error) {
	var g vmop.Guest
	err := state.NewReader(in).Get(state.Definition, &g)
	switch {
	case errors.Is(err, state.ErrVersion):
		return g, failf("the stream is from another release: %v", err)
	case errors.Is(err, state.ErrFormat):
		return g, failf("the input is no VM: %v", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return g, failf("the input ends before there is a VM")
	case err != nil:
		return g, failf("read error: %s", strerror(err))
	}
	return g, nil
}

// passWords hands what vmd says to the sender on, until it ends.
func (t *tool) passWords(sock *net.UnixConn, confirm bool) {
	to := io.Discard
	if confirm {
		to = t.out
	}
	io.Copy(to, sock)
}
