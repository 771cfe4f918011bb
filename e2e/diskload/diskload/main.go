// Diskload is package vmd/e2e/diskload as a program of guests.
package main

import (
	"os"

	"vmd/e2e/diskload"
)

func main() { os.Exit(diskload.Main()) }
