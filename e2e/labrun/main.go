// Labrun runs a command in the lab machine of package lab, or gives a shell
// there. It is for people at work on vmd, and for the Makefile's demo and
// bench.
//
//	go run ./e2e/labrun -shell
//	go run ./e2e/labrun -put demo.sh:/root/demo.sh -- sh /root/demo.sh
//
// vmd and vmctl are built and installed there; the files for guests are in
// /guest. Its exit status is the command's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmd/e2e/lab"
)

func main() {
	status, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "labrun:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

func run() (int, error) {
	o := lab.Options{Stdout: os.Stdout, Dir: "/root"}
	var put, tests []string
	flag.BoolVar(&o.Shell, "shell", false, "a shell instead of a command")
	flag.BoolVar(&o.Virtual, "virtual", false, "count time in instructions")
	flag.BoolVar(&o.QEMU, "qemu", false, "have QEMU in the machine")
	flag.DurationVar(&o.Timeout, "timeout", 10*time.Minute, "end the machine after this `time`")
	flag.StringVar(&o.Results, "results", "", "`folder` that receives /results of the machine")
	flag.StringVar(&o.Console, "console", "", "`file` that receives the kernel's messages")
	noPrograms := flag.Bool("bare", false, "do not build and install vmd and vmctl")
	flag.Func("put", "copy a file or folder `from:to` into the machine", list(&put))
	flag.Func("test", "build the tests of `package` and put them into its folder below /src", list(&tests))
	flag.Parse()
	if o.Command = flag.Args(); len(o.Command) == 0 && !o.Shell {
		return 0, fmt.Errorf("no command")
	}
	dir, err := os.MkdirTemp("", "labrun")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := addFiles(&o, dir, !*noPrograms, put, tests); err != nil {
		return 0, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	return lab.Run(ctx, o)
}

func list(to *[]string) func(string) error {
	return func(s string) error {
		*to = append(*to, s)
		return nil
	}
}

func addFiles(o *lab.Options, dir string, programs bool, put, tests []string) error {
	if programs || len(tests) > 0 {
		root, err := lab.ModuleRoot()
		if err != nil {
			return err
		}
		if programs {
			if o.Files, err = lab.BuildPrograms(root, dir); err != nil {
				return err
			}
		}
		for _, pkg := range tests {
			files, _, err := lab.BuildTest(root, strings.TrimPrefix(pkg, "./"), dir)
			if err != nil {
				return err
			}
			o.Files = append(o.Files, files...)
		}
	}
	for _, arg := range put {
		from, to, ok := strings.Cut(arg, ":")
		if !ok {
			return fmt.Errorf("-put %s: want from:to", arg)
		}
		files, err := putFiles(from, to)
		if err != nil {
			return err
		}
		o.Files = append(o.Files, files...)
	}
	return nil
}

func putFiles(from, to string) ([]lab.File, error) {
	fi, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		return lab.FilesBelow(from, to)
	}
	return []lab.File{{Name: to, Path: from, Mode: fi.Mode().Perm()}}, nil
}
