package cmd

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// dialError says that there is no connection to vmd.
type dialError struct {
	path string
	err  error
}

func (e *dialError) Error() string { return fmt.Sprintf("connect: %s: %s", e.path, strerror(e.err)) }
func (e *dialError) Unwrap() error { return e.err }

// hints are what somebody can do about an answer of vmd. Where programs look
// for the words at the very end of what vmctl says there is none.
var hints = map[vmop.Code]string{
	vmop.ErrNoFirmware: "install SeaBIOS, or give a kernel with -b",
	vmop.ErrNoBootROM:  "install iPXE's ROMs for QEMU on the host, or give a kernel with -b",
	vmop.ErrDiskLocked: "see vmctl status -v for who has it",
	vmop.ErrTimeout:    "vmctl stop -f does not wait for the guest",
	vmop.ErrTooOften:   "see vmctl status -v for how the last run ended",
	vmop.ErrCrashed:    "see vmctl status -v for how the last run ended",
	vmop.ErrTemplate:   "vmctl status lists what there is",
	vmop.ErrInternal:   "vmd's log may say more",
}

// hint prints the next step, where there is one.
func (t *tool) hint(err error) {
	if h := t.hintFor(err); h != "" {
		t.warn("%s", h)
	}
}

func (t *tool) hintFor(err error) string {
	var dial *dialError
	if errors.As(err, &dial) {
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
			return "is vmd running?"
		case errors.Is(err, unix.EACCES):
			return socketHint(dial.path)
		}
		return ""
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return usage.next
	}
	if errors.Is(err, client.ErrGone) {
		return goneHint
	}
	var refused *client.Error
	switch {
	case !errors.As(err, &refused), refused.Code == vmop.ErrTimeout && refused.Request != vmop.Stop:
		return ""
	case refused.Code == vmop.ErrNotFound, refused.Code == vmop.ErrNotRunning:
		return t.missingHint(refused.Code, refused.Request)
	}
	return hints[refused.Code]
}

// goneHint is for those whom vmd left without an answer: what they asked for may
// have been done.
const goneHint = "vmd has ended or is being restarted: see vmctl status for what came of it"

// socketHint says who may open the control socket.
func socketHint(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Gid == 0 {
		return "the socket is for root: see socket owner in vm.conf(5)"
	}
	return fmt.Sprintf("the socket is for members of group %s: see socket owner in vm.conf(5)", newNames().group(int64(sys.Gid)))
}

// Names of failures that are not vmd's.
const (
	nameUsage        = "usage"
	nameNoDaemon     = "no-daemon"
	nameNoAccess     = "no-access"
	nameDisconnected = "disconnected"
	nameFailed       = "failed"
)

// codeName is the stable name of a failure: that of vmd's code, or one of ours.
func codeName(err error) string {
	var usage *usageError
	var refused *client.Error
	var dial *dialError
	switch {
	case errors.As(err, &refused):
		return refused.Code.String()
	case errors.As(err, &dial) && errors.Is(err, unix.EACCES):
		return nameNoAccess
	case errors.As(err, &dial):
		return nameNoDaemon
	case errors.As(err, &usage):
		return nameUsage
	case lost(err):
		return nameDisconnected
	}
	return nameFailed
}

type jsonError struct {
	Version int `json:"version"`
	Error   struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	} `json:"error"`
}

// reportJSON tells a program why vmctl ends. People are told on stderr.
func (t *tool) reportJSON(err error) {
	if !t.json {
		return
	}
	e := jsonError{Version: jsonVersion}
	e.Error.Code, e.Error.Message, e.Error.Hint = codeName(err), err.Error(), t.hintFor(err)
	encodeJSON(t.out, e, "")
}

// jsonResult is what a command that asked something of a VM came to.
type jsonResult struct {
	Version int    `json:"version"`
	ID      uint32 `json:"id"`
	Name    string `json:"name"`
	TTY     string `json:"tty,omitempty"`
}

// done tells a program what became of its command.
func (t *tool) done(r vmop.Result) {
	if t.json {
		encodeJSON(t.out, jsonResult{jsonVersion, r.ID, r.Name, r.TTY}, "")
	}
}
