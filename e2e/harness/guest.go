package harness

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmd/e2e/lab"
)

// Guest returns the path of one of the files for guests: lab.GuestBzImage,
// lab.GuestVMLinux, lab.GuestInitrd. What the initrd understands is written
// at its head, e2e/lab/files/guest.sh.
func Guest(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv(lab.GuestsVar), name)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// NewDisk makes an empty raw disk in dir and returns its path.
func NewDisk(t testing.TB, dir, name string, mib int64) string {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	return path
}

// Console is a conversation with a guest.
type Console struct {
	t    testing.TB
	name string
	rw   io.ReadWriter
	more chan []byte // closed at the end of the stream
	seen bytes.Buffer
	pos  int // how far of seen Expect has come
}

// NewConsole talks over rw, as a tty or a pipe to vmctl console.
func NewConsole(t testing.TB, name string, rw io.ReadWriter) *Console {
	c := &Console{t: t, name: name, rw: rw, more: make(chan []byte)}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		defer close(c.more)
		for {
			b := make([]byte, 4096)
			n, err := rw.Read(b)
			select {
			case c.more <- b[:n]:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// pipes is the two ends that a program is spoken to through.
type pipes struct {
	io.Reader
	io.Writer
}

// Console opens vmctl console NAME as root.
func (d *Daemon) Console(name string) *Console { return d.ConsoleAs("root", name) }

// ConsoleAs opens vmctl console NAME as a user.
func (d *Daemon) ConsoleAs(user, name string) *Console {
	d.t.Helper()
	cmd := d.Command("console", name)
	if user != "root" {
		cred, err := Credential(user)
		if err != nil {
			d.t.Fatal(err)
		}
		cmd.SysProcAttr = sysProcAttr(cred)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		out.Close()
	})
	return NewConsole(d.t, name, pipes{out, in})
}

// Say types a line.
func (c *Console) Say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.rw, line+"\n"); err != nil {
		c.Reached("\x00", time.Second) // for what it said last
		c.t.Fatalf("console %s: type %q: %v; it said:\n%s", c.name, line, err, c.seen.Bytes())
	}
}

// Type types text, without a newline.
func (c *Console) Type(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.rw, text); err != nil {
		c.t.Fatalf("console %s: type %q: %v", c.name, text, err)
	}
}

// Expect waits until the guest has printed text, after what the last Expect
// waited for, and returns what came before it.
func (c *Console) Expect(text string) string {
	c.t.Helper()
	before, err := c.await(text, Patience)
	if err != nil {
		c.t.Fatalf("console %s: %v for %q; it said:\n%s", c.name, err, text, c.seen.Bytes())
	}
	return before
}

// Reached is Expect that gives up after a while and says whether text came.
func (c *Console) Reached(text string, patience time.Duration) bool {
	_, err := c.await(text, patience)
	return err == nil
}

func (c *Console) await(text string, patience time.Duration) (string, error) {
	limit := time.After(patience)
	for {
		fresh := c.seen.Bytes()[c.pos:]
		if i := bytes.Index(fresh, []byte(text)); i >= 0 {
			c.pos += i + len(text)
			return string(fresh[:i]), nil
		}
		select {
		case b, ok := <-c.more:
			if !ok {
				return "", errors.New("it ended; waited")
			}
			c.seen.Write(b)
		case <-limit:
			return "", fmt.Errorf("waited %v", patience)
		}
	}
}

// Command types a command of the guest's init and returns what it printed;
// the test fails if the command does.
func (c *Console) Command(line string) string {
	c.t.Helper()
	c.Say(line)
	out := c.Expect("status ")
	if status := strings.TrimSpace(c.Expect("\n")); status != "0" {
		c.t.Fatalf("console %s: %q ended with status %s: %s", c.name, line, status, out)
	}
	return strings.TrimSpace(strings.ReplaceAll(out, "\r", ""))
}

// Ended waits for the end of the stream.
func (c *Console) Ended() {
	c.t.Helper()
	limit := time.After(Patience)
	for {
		select {
		case b, ok := <-c.more:
			if !ok {
				return
			}
			c.seen.Write(b)
		case <-limit:
			said := c.seen.Bytes()
			c.t.Fatalf("console %s: waited %v for its end; it last said:\n%s", c.name, Patience, said[max(0, len(said)-4096):])
		}
	}
}
