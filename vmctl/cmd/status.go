package cmd

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vmd/internal/scaled"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

func (t *tool) statusCmd() *cobra.Command { return t.tableCmd("status") }

func (t *tool) showCmd() *cobra.Command { return t.tableCmd("show") }

// statusOptions are the options of status.
type statusOptions struct {
	running, details bool
}

func (t *tool) tableCmd(name string) *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   name + " [-rv] [id]",
		Short: "list VMs",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{cmd: c}
			}
			r := vmop.ListRequest{Running: o.running}
			if len(args) == 1 {
				ref, err := parseRef(args[0])
				if err != nil {
					return err
				}
				r.VM, t.asked = ref, ref
			}
			return t.status(c.Context(), r, o)
		},
	}
	c.Flags().BoolVarP(&o.running, "running", "r", false, "")
	c.Flags().BoolVarP(&o.details, "verbose", "v", false, "")
	c.Flags().BoolVar(&t.json, "json", t.json, "")
	return c
}

// status prints the VMs that r asks for. Without any, the exit status is 1.
func (t *tool) status(ctx context.Context, r vmop.ListRequest, o statusOptions) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	vms, err := list(ctx, c, r)
	if err != nil {
		return err
	}
	var stats map[uint32]*vmop.Stats
	if o.details && len(vms) > 0 {
		if stats, err = statsOf(ctx, c, r.VM); err != nil {
			return err
		}
	}
	w := bufio.NewWriter(t.out)
	switch {
	case t.json:
		err = writeJSON(w, vms, stats, newNames())
	case o.details:
		err = writeDetails(w, vms, stats, newNames(), monotonic())
	default:
		err = writeTable(w, vms, newNames(), t.stateColour())
	}
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return failf("write error: %s", strerror(err))
	}
	if len(vms) == 0 {
		if name := t.nearName(); name != "" && !t.json {
			t.warn("did you mean %s?", name)
		}
		return exit(1)
	}
	return nil
}

// statsOf returns the counters of a VM, or of all, by id. A vmd that is too old
// to know them has none.
func statsOf(ctx context.Context, c *client.Client, ref vmop.Ref) (map[uint32]*vmop.Stats, error) {
	all, err := c.Stats(ctx, ref)
	switch code(err) {
	case vmop.ErrNotFound, vmop.ErrUnsupported: // it has gone meanwhile, or was never heard of
		return nil, nil
	}
	if err != nil {
		return nil, commandFailed(err)
	}
	stats := make(map[uint32]*vmop.Stats, len(all))
	for i := range all {
		stats[all[i].ID] = &all[i]
	}
	return stats, nil
}

// list returns the VMs that r asks for, in the order of status.
func list(ctx context.Context, c *client.Client, r vmop.ListRequest) ([]vmop.VM, error) {
	vms, err := c.List(ctx, r)
	if err != nil && code(err) != vmop.ErrNotFound {
		return nil, commandFailed(err)
	}
	inOrder(vms)
	return vms, nil
}

// inOrder puts running VMs first, in the order they were started in, and leaves
// the others in vmd's order.
func inOrder(vms []vmop.VM) {
	slices.SortStableFunc(vms, func(a, b vmop.VM) int {
		switch {
		case a.PID == 0 && b.PID == 0:
			return 0
		case a.PID == 0:
			return 1
		case b.PID == 0:
			return -1
		}
		return cmp.Compare(a.Started, b.Started)
	})
}

const tableLine = "%5s %5s %5s %7s %7s %7s %12s %8s %s\n"

// writeTable writes the table that scripts have parsed for years: not one blank
// may change.
func writeTable(w io.Writer, vms []vmop.VM, n *names, paint func(state vmop.State, padded string) string) error {
	_, err := fmt.Fprintf(w, tableLine, "ID", "PID", "VCPUS", "MAXMEM", "CURMEM", "TTY", "OWNER", "STATE", "NAME")
	for i := range vms {
		if err != nil {
			break
		}
		vm := &vms[i]
		pid, resident, tty := "-", "-", "-"
		if vm.PID != 0 {
			pid, resident = strconv.Itoa(vm.PID), scaled.Format(vm.Resident)
		}
		if vm.TTY != "" {
			tty = strings.TrimPrefix(vm.TTY, "/dev/")
		}
		state := paint(vm.State, fmt.Sprintf("%8s", vm.State))
		_, err = fmt.Fprintf(w, tableLine, strconv.FormatUint(uint64(vm.ID), 10), pid, strconv.Itoa(vm.CPUs),
			scaled.Format(vm.MemoryBytes), resident, plain(tty), n.owner(vm), state, plain(vm.Name))
	}
	if err != nil {
		return failf("write error: %s", strerror(err))
	}
	return nil
}

// names remembers the names of users and groups.
type names struct {
	users, groups map[int64]string
}

func newNames() *names {
	return &names{users: make(map[int64]string), groups: make(map[int64]string)}
}

// maxOwner is where the table cuts an owner.
const maxOwner = 15

// owner is user, or user:group, as far as the table has room.
func (n *names) owner(vm *vmop.VM) string {
	s := n.wholeOwner(vm)
	return s[:min(len(s), maxOwner)]
}

func (n *names) wholeOwner(vm *vmop.VM) string {
	s := n.user(vm.OwnerUID)
	if vm.OwnerGID >= 0 {
		s += ":" + n.group(vm.OwnerGID)
	}
	return s
}

func (n *names) user(uid uint32) string {
	return lookup(n.users, int64(uid), func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (n *names) group(gid int64) string {
	return lookup(n.groups, gid, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// lookup finds id in known or by find; what has no name is a number.
func lookup(known map[int64]string, id int64, find func(string) (string, error)) string {
	s, ok := known[id]
	if !ok {
		number := strconv.FormatInt(id, 10)
		var err error
		if s, err = find(number); err != nil {
			s = number
		}
		known[id] = s
	}
	return s
}
