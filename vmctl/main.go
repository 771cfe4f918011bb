// Command vmctl controls vmd: see vmctl(8).
package main

import (
	"os"

	"vmd/vmctl/cmd"
)

func main() {
	os.Exit(cmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
