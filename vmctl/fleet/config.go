package fleet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Credentials is how a host is asked.
type Credentials struct {
	Version   string // "2c" or "3"
	Community string // version 2c

	// Version 3: authentication and privacy are used when they have a
	// protocol.
	User                       string
	AuthProtocol, AuthPassword string
	PrivProtocol, PrivPassword string
	Context                    string

	Port    uint16
	Timeout time.Duration // for all questions to one host
}

// DefaultTimeout is how long a host may take for all of its answers.
const DefaultTimeout = 5 * time.Second

func defaults() Credentials {
	return Credentials{Version: "3", Port: 161, Timeout: DefaultTimeout}
}

// Config is a file with credentials.
type Config struct {
	settings []setting
}

// setting is one line, and the hosts it is for: none stands for all.
type setting struct {
	hosts []string
	apply func(*Credentials)
}

// For returns what the file says about host. A later line wins.
func (c *Config) For(host string) Credentials {
	cred := defaults()
	for _, s := range c.settings {
		if s.matches(host) {
			s.apply(&cred)
		}
	}
	return cred
}

func (s *setting) matches(host string) bool {
	if s.hosts == nil {
		return true
	}
	for _, pattern := range s.hosts {
		if ok, _ := path.Match(pattern, host); ok { // the pattern was tried when it was read
			return true
		}
	}
	return false
}

// DefaultPath is where the credentials of a user are.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find snmp.conf: %w", err)
	}
	return filepath.Join(dir, "vmctl", "snmp.conf"), nil
}

const maxConfig = 64 << 10 // bytes

// Load reads a file with credentials. It has to be the caller's or root's, and
// nobody else's to read: there are passwords in it.
func Load(name string) (*Config, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err // has the name
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(st); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	c, err := parse(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	return c, nil
}

func private(st os.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return errors.New("not a file")
	case !ok || sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return errors.New("owned by somebody else")
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("has passwords in it, but mode %#o: make it 0600", st.Mode().Perm())
	}
	return nil
}

// keywords are the lines of the file but "host". A value is the rest of its
// line, so that a password needs no quotes.
var keywords = map[string]func(value string) (func(*Credentials), error){
	"version":   parseVersion,
	"community": text(func(c *Credentials) *string { return &c.Community }),
	"user":      text(func(c *Credentials) *string { return &c.User }),
	"context":   text(func(c *Credentials) *string { return &c.Context }),
	"auth": secret(authProtocols, func(c *Credentials, protocol, password string) {
		c.AuthProtocol, c.AuthPassword = protocol, password
	}),
	"privacy": secret(privProtocols, func(c *Credentials, protocol, password string) {
		c.PrivProtocol, c.PrivPassword = protocol, password
	}),
	"port":    parsePort,
	"timeout": parseTimeout,
}

func parse(data string) (*Config, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf(" longer than %d bytes", maxConfig)
	}
	c := new(Config)
	var hosts []string
	number := 0
	for line := range strings.Lines(data) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, value := cut(line)
		var err error
		var apply func(*Credentials)
		switch rule := keywords[word]; {
		case value == "":
			err = fmt.Errorf("%q has no value", word)
		case word == "host":
			hosts, err = patterns(value)
		case rule == nil:
			err = fmt.Errorf("unknown word %q", word)
		default:
			if apply, err = rule(value); err == nil {
				c.settings = append(c.settings, setting{hosts, apply})
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", number, err)
		}
	}
	return c, nil
}

// cut parts the first word of s from the rest.
func cut(s string) (word, rest string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

func patterns(value string) ([]string, error) {
	list := strings.Fields(value)
	for _, p := range list {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("host %q is no pattern", p)
		}
	}
	return list, nil
}

func text(field func(*Credentials) *string) func(string) (func(*Credentials), error) {
	return func(value string) (func(*Credentials), error) {
		return func(c *Credentials) { *field(c) = value }, nil
	}
}

// minPassword is RFC 3414's, 11.2.
const minPassword = 8

func secret[P any](protocols map[string]P, set func(c *Credentials, protocol, password string)) func(string) (func(*Credentials), error) {
	return func(value string) (func(*Credentials), error) {
		protocol, password := cut(value)
		if _, ok := protocols[protocol]; !ok {
			return nil, fmt.Errorf("unknown protocol %q", protocol)
		}
		if len(password) < minPassword {
			return nil, fmt.Errorf("a password has %d characters or more", minPassword)
		}
		return func(c *Credentials) { set(c, protocol, password) }, nil
	}
}

func parseVersion(value string) (func(*Credentials), error) {
	if value != "2c" && value != "3" {
		return nil, fmt.Errorf("version %q is not 2c or 3", value)
	}
	return func(c *Credentials) { c.Version = value }, nil
}

func parsePort(value string) (func(*Credentials), error) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("port %q is not a number from 1 to 65535", value)
	}
	return func(c *Credentials) { c.Port = uint16(n) }, nil
}

const maxTimeout = 300 // seconds

func parseTimeout(value string) (func(*Credentials), error) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 || n > maxTimeout {
		return nil, fmt.Errorf("timeout %q is not a number of seconds from 1 to %d", value, maxTimeout)
	}
	return func(c *Credentials) { c.Timeout = time.Duration(n) * time.Second }, nil
}

// check says what is missing to ask a host.
func (c *Credentials) check() error {
	switch {
	case c.Version == "2c" && c.Community == "":
		return errors.New("snmp.conf has no community for it")
	case c.Version == "3" && c.User == "":
		return errors.New("snmp.conf has no user for it")
	case c.Version == "3" && c.PrivProtocol != "" && c.AuthProtocol == "":
		return errors.New("snmp.conf has privacy but no auth for it")
	}
	return nil
}
