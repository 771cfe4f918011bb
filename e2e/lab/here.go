package lab

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"vmd/internal/testenv"
)

//go:embed files/here.sh
var here string

// hereVar is set to 1 for a command that Here runs.
const hereVar = "VMD_TEST_HERE"

// UsesHost reports whether this host needs no lab machine: it has a real KVM,
// and we are root.
func UsesHost() bool { return testenv.RealKVM() && os.Geteuid() == 0 }

// Here runs o.Command on this host in place of the lab machine: in namespaces
// where a vmd finds its usual paths empty, and the users of the lab. Of o it
// heeds Command, Env, Stdout and Timeout.
func Here(ctx context.Context, o Options) (int, error) {
	guests, err := Guests()
	if err != nil {
		return 0, err
	}
	o.Env = append([]string{GuestsVar + "=" + guests}, o.Env...)
	return inNamespaces(ctx, o)
}

// inNamespaces is Here without the files for guests.
func inNamespaces(ctx context.Context, o Options) (int, error) {
	unshare, err := lookTool("unshare")
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "vmdhere")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// Users are to reach what lies in it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	for name, text := range userFiles() {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(text), 0o644); err != nil {
			return 0, err
		}
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, unshare, append([]string{"--mount", "--net", "sh", "-c", here, "here.sh", dir, hereGroup()}, o.Command...)...)
	cmd.Env = append(append(os.Environ(), hereVar+"=1"), o.Env...)
	cmd.Stdout, cmd.Stderr = o.Stdout, o.Stdout
	cmd.WaitDelay = 5 * time.Second
	defer endGroup()
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return exit.ExitCode(), nil
	}
	return 0, err
}
