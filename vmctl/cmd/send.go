package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/signal"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vmd/hv/state"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

func (t *tool) sendCmd() *cobra.Command {
	var o sendOptions
	c := &cobra.Command{
		Use:   "send [--confirm] [--with-disks] [--max-pause ms] id",
		Short: "move a VM to another host",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			o.VM = ref
			return t.send(c.Context(), &o)
		},
	}
	c.Flags().BoolVar(&o.confirm, "confirm", false, "")
	c.Flags().BoolVar(&o.WithDisks, "with-disks", false, "")
	add(c.Flags(), "max-pause", "", func(word string) error {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil || n == 0 {
			return failf("invalid pause: %s", word)
		}
		o.MaxPause = uint32(n)
		return nil
	})
	return c
}

type sendOptions struct {
	vmop.SendRequest
	confirm bool
}

// sender is one send.
type sender struct {
	t       *tool
	o       *sendOptions
	out     counting
	picture *progress
	answer  chan struct{} // closed when res and err are vmd's answer
	res     vmop.Result
	err     error
}

// send writes a VM to the output, and says what became of it.
func (t *tool) send(ctx context.Context, o *sendOptions) error {
	if onTerminal(t.out) {
		return failf("a VM cannot be shown on a terminal: send it to a file, or to vmctl receive")
	}
	if nowhere(t.out) {
		return failf("a VM cannot be kept on a device: send it to a file, or to vmctl receive")
	}
	signal.Ignore(unix.SIGPIPE) // we have more to say than the shell
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	ours, theirs, err := streamPair()
	if err != nil {
		return failf("send vm command failed: %s", strerror(err))
	}
	defer ours.Close()
	s := &sender{t: t, o: o, answer: make(chan struct{}), picture: t.sendProgress(ctx, c, o.VM)}
	s.out = counting{w: t.out, seen: s.picture.at}
	begun := time.Now()
	go func() {
		s.res, s.err = c.Send(ctx, o.SendRequest, theirs)
		close(s.answer)
	}()
	err = s.relay(ours)
	ours.Close() // whatever is still to come, nobody takes it
	<-s.answer
	s.picture.end()
	if s.err == nil {
		t.warn("sent vm %s successfully, %s in %.1f s, guest paused for %d ms", plain(s.res.Name),
			mebibytes(s.out.n), time.Since(begun).Seconds(), time.Duration(s.res.Pause).Milliseconds())
		return nil
	}
	return s.failed(ctx, c, err)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// sendProgress shows how much of the VM's memory has been sent, and how fast. It
// may come to more than there is: what the guest changes is sent again.
func (t *tool) sendProgress(ctx context.Context, c *client.Client, ref vmop.Ref) *progress {
	vms, err := c.List(ctx, vmop.ListRequest{VM: ref})
	if err != nil || len(vms) != 1 {
		return &progress{}
	}
	p := t.progress(int64(vms[0].MemoryBytes))
	p.rate = true
	return p
}

// relay passes the stream on, and says to vmd what has become of it. An error is
// one of ours; what vmd thinks of it, its answer says.
func (s *sender) relay(sock *net.UnixConn) error {
	r := state.NewReader(io.TeeReader(sock, &s.out))
	for {
		switch tag, _, err := r.Next(); {
		case s.out.err != nil:
			io.WriteString(sock, vmop.WordFailed) // what is not all there runs nowhere
			return failf("write error: %s", strerror(s.out.err))
		case err != nil:
			return nil // vmd has ended it, and says why
		case tag == state.End:
			if err := s.word(sock, vmop.WordLoaded, true); err != nil {
				return err
			}
		case tag == state.Go:
			return s.word(sock, vmop.WordRuns, false)
		}
	}
}

// word tells vmd that everything up to here has gone. With --confirm it is the
// receiver who says so; otherwise it is enough that somebody has read it.
func (s *sender) word(sock *net.UnixConn, word string, more bool) error {
	var err error
	if s.o.confirm {
		word, err = s.confirmation()
	} else {
		err = drained(s.t.out, more)
	}
	if err != nil && (more || errors.Is(err, unix.EPIPE)) {
		word = vmop.WordFailed // it does not have all of it, and so cannot run it
	}
	if err == nil || word == vmop.WordFailed {
		io.WriteString(sock, word)
	}
	if err != nil {
		return failf("%s", strerror(err))
	}
	return nil
}

// confirmation is the next word of the receiver. vmd does not wait for it for
// ever.
func (s *sender) confirmation() (string, error) {
	type said struct {
		word string
		err  error
	}
	c := make(chan said, 1)
	go func() {
		w, err := readWord(s.t.in)
		c <- said{w, err}
	}()
	select {
	case w := <-c:
		return w.word, w.err
	case <-s.answer:
		return "", errors.New("no confirmation came back")
	}
}

// failed says why the VM was not sent, and what it does now. ours is what went
// wrong here, if anything did.
func (s *sender) failed(ctx context.Context, c *client.Client, ours error) error {
	if lost(s.err) {
		return s.err
	}
	why := reason(s.err)
	switch code(s.err) {
	case vmop.ErrNotFound, vmop.ErrNotRunning:
		why = "No such file or directory"
	case vmop.ErrSend:
		if ours != nil {
			why = ours.Error()
		}
	}
	err := because(s.err, "send vm command failed: %s", why)
	if code(s.err) != vmop.ErrSend {
		return err
	}
	vms, lerr := c.List(ctx, vmop.ListRequest{VM: s.o.VM})
	if lerr != nil || len(vms) != 1 {
		return err
	}
	return because(s.err, "send vm command failed: %s\n%s: vm %s is %s here", why, progName, plain(vms[0].Name), vms[0].State)
}
