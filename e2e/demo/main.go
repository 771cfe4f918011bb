// Demo shows the main job of vmd with real output: demo.sh, on this host if it
// has a real KVM, else in the emulated machine of e2e/lab.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
)

//go:embed demo.sh
var script string

// limit is how long the demo may take in the emulated machine.
const limit = 5 * time.Minute

func main() {
	start := time.Now()
	status, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("demo: status %d after %.0f s\n", status, time.Since(start).Seconds())
	os.Exit(status)
}

func run() (int, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	o := lab.Options{Stdout: os.Stdout, Timeout: limit, Command: []string{"sh", "-c", script, "demo.sh"}}
	if o.Files, err = lab.BuildPrograms(root, dir); err != nil {
		return 0, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if lab.UsesHost() {
		fmt.Println("demo: on this host's own KVM")
		o.Env = []string{lab.ProgramsVar + "=" + dir}
		return lab.Here(ctx, o)
	}
	fmt.Println("demo: no AMD-V or VT-x here (or no root): in an emulated machine with AMD-V")
	return lab.Run(ctx, o)
}
