package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// qemuGroup is where QEMU runs. vmd puts each guest into a control group two
// levels down, and who manages QEMU does the like: each level costs something at
// each switch of processes.
const qemuGroup = "/sys/fs/cgroup/qemu/1"

// qemuCommand is QEMU with the lab's guest on a machine without devices but
// those in more, and its serial port on the standard input and output.
func qemuCommand(machine, kernel, initrd, words string, more ...string) *exec.Cmd {
	args := []string{"-machine", machine + ",accel=kvm", "-cpu", "host",
		"-m", strconv.Itoa(guestMiB), "-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", words}
	return exec.Command("qemu-system-x86_64", append(args, more...)...)
}

// startQEMU starts it in its control group.
func startQEMU(cmd *exec.Cmd) error {
	if err := os.MkdirAll(qemuGroup, 0o755); err != nil {
		return err
	}
	group, err := os.Open(qemuGroup)
	if err != nil {
		return err
	}
	defer group.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	return cmd.Start()
}
