package cmd

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmd/hv/disk/qcow2"
	"vmd/internal/scaled"
	"vmd/internal/vmop"
)

// maxName is how long a VM's or a switch's name can be.
const maxName = 63

// oneRef is the VM that the only operand of c names.
func (t *tool) oneRef(c *cobra.Command, args []string) (vmop.Ref, error) {
	if len(args) != 1 {
		return vmop.Ref{}, &usageError{cmd: c}
	}
	ref, err := parseRef(args[0])
	if err == nil && ref == (vmop.Ref{}) {
		err = failf("invalid id: %s", args[0])
	}
	t.asked = ref
	return ref, err
}

// parseRef reads an id: a whole number is a VM's number, anything else a name.
// The number 0 gives the zero Ref.
func parseRef(word string) (vmop.Ref, error) {
	number := strings.TrimPrefix(strings.TrimLeft(word, " \t\n\v\f\r"), "+")
	if n, err := strconv.ParseUint(number, 10, 32); err == nil {
		return vmop.Ref{ID: uint32(n)}, nil
	}
	switch {
	case len(word) > maxName:
		return vmop.Ref{}, failf("name too long\n%s: invalid id: %s", progName, word)
	case word == "" || word[0] == '-':
		return vmop.Ref{}, failf("invalid id: %s", word)
	}
	return vmop.Ref{Name: word}, nil
}

// checkName is the rule for names of VMs that are yet to be.
func checkName(name, tooLong, invalid string) error {
	if len(name) > maxName {
		return failf("%s", tooLong)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune(".-_", rune(c))) {
			return failf("%s", invalid)
		}
	}
	if name == "" {
		return failf("%s", invalid)
	}
	return nil
}

const megabyte = 1 << 20

// parseSize reads a size of what ("disk", "memory"). It is a multiple of one
// megabyte, cut to that with a warning, which is for the caller to print.
func parseSize(what, word string) (n int64, warning string, err error) {
	n, err = scaled.Parse(word)
	switch {
	case err != nil:
		return 0, "", failf("invalid %s size: %s: %s", what, word, strerror(err))
	case n < megabyte && n > 0 && !strings.ContainsAny(word, "bBkKmM"):
		return 0, "", failf("%s size must be at least 1MB (did you mean %sM?)", what, strings.TrimSpace(word))
	case n < megabyte:
		return 0, "", failf("%s size must be at least 1MB", what)
	}
	whole := n &^ (megabyte - 1)
	if whole != n {
		warning = fmt.Sprintf("%s size rounded to %s", what, scaled.Format(uint64(whole)))
	}
	return whole, warning, nil
}

// parseCount reads a number from 1 to limit, as strtonum(3) does.
func parseCount(word string, limit int64) (int, string) {
	n, err := strconv.ParseInt(strings.TrimLeft(word, " \t\n\v\f\r"), 10, 64)
	switch {
	case err != nil && !isRange(err):
		return 0, "invalid"
	case n < 1:
		return 0, "too small"
	case n > limit:
		return 0, "too large"
	}
	return int(n), ""
}

func isRange(err error) bool {
	e, ok := err.(*strconv.NumError)
	return ok && e.Err == strconv.ErrRange
}

// seconds is a flag that takes a time limit: "90", "90s" or "2m".
type seconds uint32

func (s *seconds) String() string { return strconv.Itoa(int(*s)) }
func (s *seconds) Type() string   { return "time" }
func (s *seconds) Set(word string) error {
	n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 32)
	if err != nil {
		d, derr := time.ParseDuration(strings.TrimSpace(word))
		if derr != nil || d < 0 || d > math.MaxUint32*time.Second {
			return failf("invalid time limit: %s", word)
		}
		n = uint64((d + time.Second - 1) / time.Second)
	}
	if n == 0 {
		return failf("invalid time limit: %s", word)
	}
	*s = seconds(n)
	return nil
}

// absolute is path as vmd can use it: absolute, with links resolved. The file
// must exist.
func absolute(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(real)
}

// A disk's format.
const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
)

// diskFormat splits a disk argument into path and format. guessed says that
// nothing but the file's own first bytes, which a guest may have written, made
// it qcow2.
func diskFormat(arg string) (path, format string, guessed bool) {
	for _, f := range []string{formatRaw, formatQcow2} {
		if p, ok := strings.CutPrefix(arg, f+":"); ok {
			return p, f, false
		}
	}
	if hasMagic(arg) {
		return arg, formatQcow2, !strings.EqualFold(filepath.Ext(arg), "."+formatQcow2)
	}
	if strings.EqualFold(filepath.Ext(arg), "."+formatQcow2) {
		return arg, formatQcow2, false
	}
	return arg, formatRaw, false
}

func hasMagic(path string) bool {
	f, err := os.OpenFile(path, openFlags(os.O_RDONLY), 0)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, 4)
	n, _ := f.ReadAt(b, 0)
	return qcow2.Detect(b[:n])
}
