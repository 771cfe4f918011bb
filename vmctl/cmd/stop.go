package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

func (t *tool) stopCmd() *cobra.Command {
	var o stopOptions
	c := &cobra.Command{
		Use:   "stop [-fw] [id | -a]",
		Short: "stop a VM, or all",
		RunE: func(c *cobra.Command, args []string) error {
			if o.all == (len(args) > 0) || len(args) > 1 {
				return &usageError{cmd: c}
			}
			if o.all {
				return t.stopAll(c.Context(), o)
			}
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			return t.stopOne(c.Context(), ref, o)
		},
	}
	c.Flags().BoolVarP(&o.force, "force", "f", false, "")
	c.Flags().BoolVarP(&o.wait, "wait", "w", false, "")
	c.Flags().BoolVarP(&o.all, "all", "a", false, "")
	c.Flags().Var(&o.timeout, "timeout", "")
	return c
}

type stopOptions struct {
	force, wait, all bool
	timeout          seconds
}

func (o stopOptions) request(ref vmop.Ref) vmop.StopRequest {
	// A limit on the time makes no sense for who does not wait.
	return vmop.StopRequest{VM: ref, Force: o.force, Wait: o.wait || o.timeout > 0, Timeout: uint32(o.timeout)}
}

func (t *tool) stopOne(ctx context.Context, ref vmop.Ref, o stopOptions) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	t.announce("stopping", ref)
	res, err := c.Stop(ctx, o.request(ref))
	return t.stopped(res, err, o)
}

// announce begins the line that stopped ends.
func (t *tool) announce(what string, ref vmop.Ref) {
	if ref.Name == "" {
		fmt.Fprintf(t.err, "%s vm: ", what)
		return
	}
	fmt.Fprintf(t.err, "%s vm %s: ", what, plain(ref.Name))
}

// stopped prints how a stop or wait ended.
func (t *tool) stopped(res vmop.Result, err error, o stopOptions) error {
	var end string
	switch code(err) {
	case vmop.ErrNotFound:
		end = "vm not found"
	case vmop.ErrNotRunning:
		end = "cannot stop vm that is not running"
	case vmop.OK:
		switch {
		case lost(err):
			fmt.Fprintln(t.err)
			return err
		case err != nil:
			end = reason(err)
		case o.wait || o.timeout > 0:
			end = fmt.Sprintf("terminated vm %d", res.ID)
		case o.force:
			end = fmt.Sprintf("forced to terminate vm %d", res.ID)
		default:
			end = fmt.Sprintf("requested to shutdown vm %d", res.ID)
		}
	default:
		end = "failed: " + reason(err)
	}
	fmt.Fprintln(t.err, end)
	if err != nil {
		t.hint(err)
		t.cause = because(err, "%s", end)
		return exit(1)
	}
	t.done(res)
	return nil
}

// stopsAtOnce is how many guests shut down at the same time in stop -a. vmd
// lets a client have 64 requests in flight.
const stopsAtOnce = 48

// stopAll stops all running VMs: it asks many at a time and reports one after
// the other, in the order of status.
func (t *tool) stopAll(ctx context.Context, o stopOptions) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	vms, err := c.List(ctx, vmop.ListRequest{Running: true})
	if err != nil {
		return commandFailed(err)
	}
	inOrder(vms)
	answers := stopEach(ctx, c, vms, o)
	failed := false
	for i, vm := range vms {
		t.announce("stopping", vmop.Ref{Name: vm.Name})
		a := <-answers[i]
		err := t.stopped(a.res, a.err, o)
		if err != nil && lost(err) {
			return err
		}
		failed = failed || err != nil
	}
	if failed {
		return exit(1)
	}
	return nil
}

// answer is what became of a request.
type answer struct {
	res vmop.Result
	err error
}

// stopEach asks each of vms to stop. Its channels give one answer each.
func stopEach(ctx context.Context, c *client.Client, vms []vmop.VM, o stopOptions) []chan answer {
	answers := make([]chan answer, len(vms))
	room := make(chan struct{}, stopsAtOnce)
	for i := range answers {
		answers[i] = make(chan answer, 1)
	}
	go func() {
		for i, vm := range vms {
			room <- struct{}{}
			go func() {
				res, err := c.Stop(ctx, o.request(vmop.Ref{ID: vm.ID}))
				answers[i] <- answer{res, err}
				<-room
			}()
		}
	}()
	return answers
}
