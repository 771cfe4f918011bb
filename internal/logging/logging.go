// Package logging is the one place that configures zerolog: where a process's
// log goes, in which form, and how much of it.
package logging

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// envSyslog tells a process that its standard error is a datagram socket
// connected to the system's logger.
const envSyslog = "VMD_LOG_SYSLOG"

// Syslog points standard error at the system's logger, for this process and
// those it spawns. A host without a logger is not an error: what is logged
// there is lost, as it is for every other daemon.
func Syslog() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make a socket for the log: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: "/dev/log"}); err == nil {
		os.Setenv(envSyslog, "1")
	} else {
		unix.Close(fd)
		if fd, err = unix.Open("/dev/null", unix.O_WRONLY, 0); err != nil {
			return fmt.Errorf("open /dev/null: %w", err)
		}
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, 2, 0); err != nil {
		return fmt.Errorf("redirect the log: %w", err)
	}
	return nil
}

// New returns the logger of the process called name. It writes to standard
// error: to a person, to journald (which understands a priority in angle
// brackets, sd-daemon(3)), or to syslog after Syslog.
func New(name string, verbose bool) zerolog.Logger {
	w := &lineWriter{out: os.Stderr, name: name}
	w.syslog = os.Getenv(envSyslog) != ""
	w.priority = w.syslog || os.Getenv("JOURNAL_STREAM") != ""
	return zerolog.New(w).Level(Level(verbose))
}

// Level is what a process logs.
func Level(verbose bool) zerolog.Level {
	if verbose {
		return zerolog.DebugLevel
	}
	return zerolog.InfoLevel
}

// Sampled is log for what somebody outside can cause as often as they like.
func Sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: 10, Period: 10 * time.Second})
}

// lineWriter turns zerolog's JSON into one line a person can read.
type lineWriter struct {
	out              io.Writer
	name             string
	syslog, priority bool
}

// severity is a level's number in syslog (RFC 5424, 6.2.1).
var severity = map[zerolog.Level]int{
	zerolog.DebugLevel: 7, zerolog.InfoLevel: 6, zerolog.WarnLevel: 4,
	zerolog.ErrorLevel: 3, zerolog.FatalLevel: 2, zerolog.PanicLevel: 2,
}

// plain keeps a record to one line, and from commanding a terminal: it may quote
// a file, or a guest. zerolog quotes most fields itself, but not the message.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

const facilityDaemon = 3 << 3

func (w *lineWriter) Write(p []byte) (int, error) { return w.WriteLevel(zerolog.InfoLevel, p) }

// WriteLevel implements zerolog.LevelWriter.
func (w *lineWriter) WriteLevel(l zerolog.Level, p []byte) (int, error) {
	var b strings.Builder
	if w.priority {
		b.WriteString("<" + strconv.Itoa(severity[l]|facilityDaemon) + ">")
	}
	if w.syslog {
		b.WriteString("vmd[" + strconv.Itoa(os.Getpid()) + "]: ")
	}
	b.WriteString(w.name + ": ")
	if l >= zerolog.WarnLevel && !w.priority {
		b.WriteString(l.String() + ": ")
	}
	cw := zerolog.ConsoleWriter{Out: &b, NoColor: true, PartsOrder: []string{zerolog.MessageFieldName}}
	if _, err := cw.Write(p); err != nil {
		return 0, err
	}
	// A log that cannot be written must not stop what is being logged.
	io.WriteString(w.out, plain(strings.TrimSuffix(b.String(), "\n"))+"\n")
	return len(p), nil
}
