package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vmd/internal/scaled"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// usageError ends vmctl with a usage line: cmd's, or the global one. line is
// printed before it as a message, text as it is, and next, which says what could
// be done, behind it.
type usageError struct {
	cmd  *cobra.Command
	line string
	text string
	next string
}

func (e *usageError) Error() string { return "usage" }

// exit ends vmctl with a status and no message: all has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failf makes an error whose text is printed as it is.
func failf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// because is failf for something that cause is the reason of: it tells its code
// and what to do about it.
func because(cause error, format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), cause}
}

type failure struct {
	text  string
	cause error
}

func (e *failure) Error() string { return e.text }
func (e *failure) Unwrap() error { return e.cause }

// report prints why vmctl ends and returns its exit status.
func (t *tool) report(err error) int {
	var usage *usageError
	var status exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		if t.cause != nil {
			t.reportJSON(t.cause)
		}
		return int(status)
	case errors.As(err, &usage):
		t.usage(usage)
	case errors.Is(err, client.ErrGone):
		t.warn("pipe closed")
		t.hint(err)
	default:
		t.warn("%v", err)
		t.hint(err)
	}
	t.reportJSON(err)
	return 1
}

func (t *tool) usage(e *usageError) {
	if e.text != "" {
		fmt.Fprintln(t.err, e.text)
	}
	if e.line != "" {
		t.warn("%s", e.line)
	}
	if e.cmd == nil {
		fmt.Fprintf(t.err, "usage:\t%s [-v] command [arg ...]\n", progName)
	} else {
		fmt.Fprint(t.err, usageLine(e.cmd))
	}
	t.hint(e)
}

// usageLine is a command's usage. Its Use is "name args", with the lines of
// long args separated by newlines.
func usageLine(c *cobra.Command) string {
	name, args, _ := strings.Cut(c.Use, " ")
	return fmt.Sprintf("usage:\t%s [-v] %s %s\n", progName, name, strings.ReplaceAll(args, "\n", "\n\t\t"))
}

// reasons say what a code means. The words of errno(2) are those that programs
// know from OpenBSD.
var reasons = map[vmop.Code]string{
	vmop.ErrPermission:    "Operation not permitted",
	vmop.ErrNotFound:      "No such VM",
	vmop.ErrRunning:       "Operation already in progress",
	vmop.ErrNotRunning:    "VM is not running",
	vmop.ErrStopping:      "Operation already in progress",
	vmop.ErrInvalid:       "Invalid argument",
	vmop.ErrNoFirmware:    "Firmware file not found",
	vmop.ErrKernel:        "Cannot use the kernel",
	vmop.ErrDisk:          "Cannot open a disk image",
	vmop.ErrDiskLocked:    "Disk image is in use",
	vmop.ErrCDROM:         "Cannot open the ISO image",
	vmop.ErrTemplate:      "No such template",
	vmop.ErrInstance:      "Not allowed to make an instance of this VM",
	vmop.ErrNameTaken:     "Name is in use",
	vmop.ErrShared:        "Device busy",
	vmop.ErrMemory:        "Cannot allocate memory",
	vmop.ErrHypervisor:    "Input/output error",
	vmop.ErrNetwork:       "Cannot make a network interface",
	vmop.ErrTooOften:      "Restarted too often",
	vmop.ErrConfig:        "Error in the configuration",
	vmop.ErrTimeout:       "Operation timed out",
	vmop.ErrUnsupported:   "Operation not supported",
	vmop.ErrCrashed:       "VM has crashed",
	vmop.ErrUnavailable:   "A part of vmd is restarting, try again",
	vmop.ErrBusy:          "vmd is busy, try again",
	vmop.ErrNothingToBoot: "Nothing to boot from",
	vmop.ErrInternal:      "Internal error of vmd",
	vmop.ErrSEV:           "SEV is not available",
	vmop.ErrSend:          "The VM was not sent",
	vmop.ErrStream:        "The stream cannot be used",
	vmop.ErrNoBootROM:     "Cannot boot from the network",
}

// reason is err as the end of a message. For an answer of vmd it is the words
// of its code and then its detail, except where programs look for the words
// at the end of the line and the detail says no more.
func reason(err error) string {
	var refused *client.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return reasons[vmop.ErrTimeout]
	case !errors.As(err, &refused):
		return strerror(err)
	}
	switch refused.Code {
	case vmop.ErrRunning, vmop.ErrStopping, vmop.ErrPermission:
		return reasons[refused.Code]
	}
	words, ok := reasons[refused.Code]
	if !ok {
		words = fmt.Sprintf("Error %d", refused.Code)
	}
	return withDetail(words, refused)
}

func withDetail(words string, e *client.Error) string {
	if d := plain(e.Detail); d != "" && !strings.EqualFold(d, words) {
		return words + ": " + d
	}
	return words
}

// code is the code of an answer of vmd, or OK if err is none.
func code(err error) vmop.Code {
	var refused *client.Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	return vmop.OK
}

// lost reports whether err is about the connection and not about the request.
func lost(err error) bool {
	return errors.Is(err, client.ErrGone) || errors.Is(err, client.ErrUnexpected)
}

// strerror is the text of the system's error in err, as strerror(3) has it.
func strerror(err error) string {
	switch {
	case errors.Is(err, scaled.ErrSyntax):
		err = unix.EINVAL
	case errors.Is(err, scaled.ErrRange):
		err = unix.ERANGE
	case errors.Is(err, os.ErrExist):
		err = unix.EEXIST
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	s := errno.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// plain makes text of vmd's fit for a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return '?'
		}
		return r
	}, s)
}
