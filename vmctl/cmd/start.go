package cmd

import (
	"context"
	"errors"
	"math"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

const (
	maxDisks  = 4
	maxNICs   = 4
	maxCPUs   = 64
	maxMemory = 128 << 30
	maxPath   = 1023
)

func (t *tool) startCmd() *cobra.Command {
	var o startOptions
	c := &cobra.Command{
		Use: "start [-cL] [-B device] [-b path] [-d disk] [-i count]\n" +
			"[-m size] [-n switch] [-p count] [-r path] [-t name] id | name",
		Short: "start a VM, or define one and start it",
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := t.oneRef(c, args)
			if err != nil {
				return err
			}
			return t.start(c.Context(), ref, &o)
		},
	}
	o.register(t, c.Flags())
	return c
}

// startOptions are the options of start. Those that are not given stay zero.
type startOptions struct {
	console    bool
	bootDevice string
	kernel     string
	initrd     string
	cmdline    string
	cdrom      string
	template   string
	memory     int64
	cpus       int
	nicCount   int
	disks      []string
	nics       []vmop.NICDef
	warnings   []string // to be said when it has started
}

func (o *startOptions) register(t *tool, f *pflag.FlagSet) {
	text := func(dst *string, what string) func(string) error {
		return func(word string) error {
			switch {
			case *dst != "":
				return failf("%s specified multiple times", what)
			case word == "" && dst != &o.cmdline: // a variable that is not set, perhaps
				return failf("%s is empty", what)
			}
			*dst = word
			return nil
		}
	}
	f.BoolVarP(&o.console, "console", "c", false, "")
	add(f, "boot-device", "B", func(word string) error {
		switch word {
		case "disk", "cdrom", "net":
			return text(&o.bootDevice, "boot device")(word)
		}
		return failf("unknown boot device %s", word)
	})
	add(f, "boot", "b", text(&o.kernel, "boot image"))
	add(f, "initrd", "", text(&o.initrd, "initrd"))
	add(f, "cmdline", "", text(&o.cmdline, "command line"))
	add(f, "cdrom", "r", text(&o.cdrom, "iso image"))
	add(f, "disk", "d", func(word string) error {
		if len(o.disks) == maxDisks {
			return failf("too many disks")
		}
		if word == "" {
			return failf("disk is empty")
		}
		o.disks = append(o.disks, word)
		return nil
	})
	add(f, "memory", "m", func(word string) (err error) {
		if o.memory != 0 {
			return failf("memory specified multiple times")
		}
		var warning string
		if o.memory, warning, err = parseMemory(word); warning != "" {
			o.warnings = append(o.warnings, warning)
		}
		return err
	})
	add(f, "cpus", "p", count(&o.cpus, maxCPUs, "cpu count", "cpus"))
	add(f, "interfaces", "i", count(&o.nicCount, math.MaxInt32, "count", "interfaces"))
	add(f, "switch", "n", func(word string) error {
		if len(word) > maxName {
			return failf("interface name too long")
		}
		o.nics = append(o.nics, vmop.NICDef{Switch: word})
		return nil
	})
	f.BoolFuncP("local", "L", "", func(string) error {
		o.nics = append(o.nics, vmop.NICDef{Local: true})
		return nil
	})
	add(f, "template", "t", func(word string) error {
		o.template = word
		return checkName(word, "instance vm name too long", "invalid name: "+word)
	})
}

// add adds an option whose value set takes.
func add(f *pflag.FlagSet, long, short string, set func(string) error) {
	f.FuncP(long, short, "", set)
}

// count returns a setter for a number that is given once.
func count(dst *int, limit int64, what, twice string) func(string) error {
	return func(word string) error {
		if *dst != 0 {
			return failf("%s specified multiple times", twice)
		}
		n, wrong := parseCount(word, limit)
		switch {
		case wrong == "":
			*dst = n
			return nil
		case what == "count":
			return failf("count is %s: %s\n%s: invalid interface count: %s", wrong, word, progName, word)
		}
		return failf("%s is %s: %s", what, wrong, word)
	}
}

func parseMemory(word string) (n int64, warning string, err error) {
	n, warning, err = parseSize("memory", word)
	if err == nil && n > maxMemory {
		err = failf("memory size too large (limit is 128G)")
	}
	return n, warning, err
}

// start starts a VM as o says, and connects to its console if it says so.
func (t *tool) start(ctx context.Context, ref vmop.Ref, o *startOptions) error {
	req, files, err := t.startRequest(ref, o)
	defer files.close()
	if err != nil {
		return err
	}
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	req.Files = files.names
	res, err := c.Start(ctx, *req, files.take()...)
	if err != nil && code(err) == vmop.ErrNameTaken && o.template == "" {
		return defined(err)
	}
	if err != nil {
		return startFailed("start", err)
	}
	if o.console {
		return t.attach(ctx, c, consoleOptions{vm: vmop.Ref{ID: res.ID}})
	}
	t.warn("started vm %d successfully, tty %s", res.ID, plain(res.TTY))
	t.done(res)
	for _, w := range append(o.warnings, files.warnings...) { // programs expect the line above first
		t.warn("%s", w)
	}
	return nil
}

// defined is the message for options that a VM which is defined cannot be given.
// Programs look for the words at the end of the first line.
func defined(err error) error {
	text := "start vm command failed: " + reasons[vmop.ErrRunning]
	var e *client.Error
	if errors.As(err, &e) && e.Detail != "" {
		text += "\n" + progName + ": " + plain(e.Detail)
	}
	return because(err, "%s", text)
}

// startFailed is the message for an answer to start, or to another command that
// has a VM run, other than yes.
func startFailed(command string, err error) error {
	if lost(err) {
		return err
	}
	var e *client.Error
	if errors.As(err, &e) {
		switch e.Code {
		case vmop.ErrNoFirmware:
			if e.Detail == "" {
				return because(err, "vmm bios firmware file not found.")
			}
			return because(err, "%s", withDetail("vmm bios firmware file not found", e))
		case vmop.ErrDisk, vmop.ErrDiskLocked:
			return because(err, "%s", withDetail("could not open disk image(s)", e))
		case vmop.ErrCDROM:
			return because(err, "%s", withDetail("could not find specified iso image", e))
		case vmop.ErrTemplate:
			return because(err, "%s", withDetail("invalid template", e))
		case vmop.ErrNothingToBoot:
			return because(err, "%s", withDetail("no kernel or disk/cdrom specified", e))
		}
	}
	return because(err, "%s vm command failed: %s", command, reason(err))
}

// startRequest makes the request of o, with the files that go with it open.
func (t *tool) startRequest(ref vmop.Ref, o *startOptions) (*vmop.StartRequest, *startFiles, error) {
	files := &startFiles{}
	req := &vmop.StartRequest{VM: ref, Template: o.template, BootDevice: o.bootDevice}
	if err := o.check(t, ref); err != nil {
		return nil, files, err
	}
	def := vmop.Definition{
		MemoryBytes: uint64(o.memory),
		CPUs:        o.cpus,
		Cmdline:     o.cmdline,
		NICs:        o.nics,
		NICCount:    o.nicCount,
	}
	if err := files.open(o, &def); err != nil {
		return nil, files, err
	}
	if o.defines() || o.thisBoot() {
		req.Define = &def
	}
	return req, files, nil
}

// thisBoot reports whether o says something that a VM which exists can be
// started with, this time only.
func (o *startOptions) thisBoot() bool {
	return o.kernel != "" || o.initrd != "" || o.cmdline != "" || o.cpus != 0
}

// defines reports whether o says something that only a new VM can have.
func (o *startOptions) defines() bool {
	return o.cdrom != "" || o.memory != 0 || o.nicCount != 0 || len(o.disks)+len(o.nics) > 0
}

func (o *startOptions) hasNIC() bool { return o.nicCount != 0 || len(o.nics) > 0 }

// check looks at what vmctl itself can know about the VM that o defines.
func (o *startOptions) check(t *tool, ref vmop.Ref) error {
	if ref.Name != "" {
		if err := checkName(ref.Name, "vm name too long", "invalid VM name"); err != nil {
			return err
		}
	}
	if o.template != "" || !o.defines() {
		return nil
	}
	if len(o.disks) == 0 && o.kernel == "" {
		t.warn("starting without disks")
		if o.cdrom == "" && (o.bootDevice != "net" || !o.hasNIC()) {
			return failf("no kernel or disk/cdrom specified")
		}
	}
	if max(o.nicCount, len(o.nics)) > maxNICs {
		return failf("too many network interfaces")
	}
	if !o.hasNIC() && o.kernel == "" {
		t.warn("starting without network interfaces")
	}
	return nil
}
