package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vmd/internal/notation"
	"vmd/internal/scaled"
	"vmd/internal/vmop"
	"vmd/vmctl/fleet"
)

// optionValue is the value of an option before the command: what is attached to
// it, or the next of args.
func optionValue(attached string, args []string) (value string, rest []string, err error) {
	switch {
	case attached != "":
		return strings.TrimPrefix(attached, "="), args, nil
	case len(args) == 0:
		return "", nil, &usageError{line: "option requires an argument"}
	}
	return args[0], args[1:], nil
}

// runFleet carries out the command name, which has to be status, for other hosts.
func (t *tool) runFleet(name string, args []string) error {
	if name != "status" && name != "show" {
		return failf("%s: other hosts can only be asked for their status", name)
	}
	c := t.fleetCmd(name)
	t.adopt(c)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	return c.ExecuteContext(context.Background())
}

func (t *tool) fleetCmd(name string) *cobra.Command {
	var r vmop.ListRequest
	c := &cobra.Command{
		Use: name + " [-r] [id]",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if len(args) > 1 {
				return &usageError{cmd: c}
			}
			if len(args) == 1 {
				if r.VM, err = parseRef(args[0]); err != nil {
					return err
				}
			}
			return t.fleetStatus(c.Context(), r, t.json)
		},
	}
	c.Flags().BoolVarP(&r.Running, "running", "r", false, "")
	c.Flags().BoolVar(&t.json, "json", t.json, "")
	return c
}

const maxHosts = 4096

// hostList adds the hosts of a list with commas to hosts.
func hostList(hosts []string, list string) ([]string, error) {
	for h := range strings.SplitSeq(list, ",") {
		switch {
		case h == "" || strings.ContainsAny(h, " \t/") || h != plain(h):
			return nil, failf("invalid host: %q", h)
		case len(hosts) == maxHosts:
			return nil, failf("more than %d hosts", maxHosts)
		case !slices.Contains(hosts, h):
			hosts = append(hosts, h)
		}
	}
	return hosts, nil
}

// fleetStatus prints the VMs of other hosts that r asks for. Those that answer
// are shown, whatever the others do; the exit status is 0 if all of them answered
// and there was something to show.
func (t *tool) fleetStatus(ctx context.Context, r vmop.ListRequest, asJSON bool) error {
	path := t.snmpConfig
	if path == "" {
		var err error
		if path, err = fleet.DefaultPath(); err != nil {
			return failf("%v", err)
		}
	}
	c, err := fleet.Load(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return failf("%v\n%s: it says how to ask: see OTHER HOSTS in vmctl(8)", err, progName)
	case err != nil:
		return failf("%v", err)
	}
	answers := fleet.Ask(ctx, c, t.hosts)
	shown, failed := 0, false
	for i := range answers {
		a := &answers[i]
		a.VMs = slices.DeleteFunc(a.VMs, func(v fleet.VM) bool { return !wanted(&v, r) })
		shown += len(a.VMs)
		if a.Err != nil {
			failed = true
			t.warn("%s: %s", a.Host, strerror(a.Err))
		}
	}
	w := bufio.NewWriter(t.out)
	if asJSON {
		writeFleetJSON(w, answers)
	} else {
		writeFleet(w, answers)
	}
	if err := w.Flush(); err != nil { // it keeps the first error
		return failf("write error: %s", strerror(err))
	}
	if failed || shown == 0 {
		return exit(1)
	}
	return nil
}

func wanted(v *fleet.VM, r vmop.ListRequest) bool {
	switch {
	case r.Running && !v.Live():
		return false
	case r.VM.ID != 0:
		return v.ID == r.VM.ID
	case r.VM.Name != "":
		return v.Name == r.VM.Name
	}
	return true
}

// writeFleet writes the table of status, with the host in front. What SNMP does
// not tell is a dash; CURMEM is what the VM has been given, as the MIB wants it.
func writeFleet(w *bufio.Writer, answers []fleet.Answer) {
	width := len("HOST")
	for i := range answers {
		width = max(width, len(answers[i].Host))
	}
	fmt.Fprintf(w, "%-*s "+tableLine, width, "HOST",
		"ID", "PID", "VCPUS", "MAXMEM", "CURMEM", "TTY", "OWNER", "STATE", "NAME")
	for i := range answers {
		for j := range answers[i].VMs {
			v := &answers[i].VMs[j]
			current := "-"
			if v.Live() {
				current = scaled.Format(v.Allocated)
			}
			fmt.Fprintf(w, "%-*s "+tableLine, width, answers[i].Host, strconv.FormatUint(uint64(v.ID), 10), "-",
				strconv.Itoa(v.CPUs), scaled.Format(v.Memory), current, "-", "-", v.State(), v.Name)
		}
	}
}

type jsonFleet struct {
	Version int        `json:"version"`
	Hosts   []jsonHost `json:"hosts"`
}

type jsonHost struct {
	Host  string        `json:"host"`
	Error string        `json:"error,omitempty"`
	VMs   []jsonFleetVM `json:"vms"`
}

type jsonFleetVM struct {
	ID         uint32  `json:"id"`
	Name       string  `json:"name"`
	UUID       string  `json:"uuid"`
	State      string  `json:"state"`
	Persistent bool    `json:"persistent"`
	Autostart  bool    `json:"autostart"`
	CPUs       int     `json:"cpus"`
	Memory     uint64  `json:"memory"`
	Allocated  uint64  `json:"allocated"`
	Uptime     float64 `json:"uptime,omitempty"`
	CPUTime    float64 `json:"cpu_time"`
}

func writeFleetJSON(w *bufio.Writer, answers []fleet.Answer) {
	s := jsonFleet{Version: jsonVersion, Hosts: []jsonHost{}}
	for i := range answers {
		a := &answers[i]
		h := jsonHost{Host: a.Host, VMs: []jsonFleetVM{}}
		if a.Err != nil {
			h.Error = strerror(a.Err)
		}
		for j := range a.VMs {
			v := &a.VMs[j]
			h.VMs = append(h.VMs, jsonFleetVM{
				ID: v.ID, Name: v.Name, UUID: notation.UUID(v.UUID), State: v.State(),
				Persistent: v.Persistent, Autostart: v.Autostart, CPUs: v.CPUs,
				Memory: v.Memory, Allocated: v.Allocated,
				Uptime: v.Uptime.Seconds(), CPUTime: v.CPUTime.Seconds(),
			})
		}
		s.Hosts = append(s.Hosts, h)
	}
	encodeJSON(w, s, "  ")
}
