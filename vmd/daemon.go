package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"vmd/internal/privsep"
	"vmd/vmd/parent"
)

// version is what vmHvVersion and the log say.
var version = "0.1"

// runParent is the daemon itself.
func runParent(f flags, stderr io.Writer) error {
	if err := mayRun(); err != nil {
		return err
	}
	say := func(error) {}
	if detached() {
		var err error
		if say, err = background(); err != nil {
			say(err)
			return err
		}
	}
	// The service manager kills a vmd of which it hears nothing for so long.
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		fmt.Fprintf(stderr, "vmd: how long the service manager waits: %v\n", err)
	}
	c, err := loadConfig(f, stderr)
	if err == nil {
		o := parent.Options{
			Config:     c,
			ConfigPath: f.file,
			Optional:   !f.fileGiven,
			Macros:     f.macros,
			Verbose:    f.verbose > 0,
			Version:    version,
			Ready: func() {
				say(nil)
				tell(stderr, daemon.SdNotifyReady)
			},
		}
		if patience > 0 {
			o.Alive, o.AliveEvery = func() { tell(stderr, daemon.SdNotifyWatchdog) }, patience/3
		}
		err = parent.Run(o)
	}
	if err != nil {
		say(err)
	}
	return err
}

// mayRun says why there can be no daemon, before any is there to say it.
func mayRun() error {
	if os.Geteuid() != 0 {
		return errors.New("need root privileges")
	}
	return privsep.CheckBuild()
}

// tell tells the service manager something, if there is one (sd_notify(3)).
func tell(stderr io.Writer, what string) {
	if _, err := daemon.SdNotify(false, what); err != nil {
		fmt.Fprintf(stderr, "vmd: tell the service manager: %v\n", err)
	}
}
