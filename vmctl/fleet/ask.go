package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"
)

// errNoMIB is what a host without VM-MIB gets.
var errNoMIB = errors.New("snmpd does not show it VMs (VM-MIB): see agentx in vm.conf(5), and its view")

const (
	tries       = 3
	repetitions = 40 // in a GETBULK: an answer of some 1400 octets
	maxVars     = 16 * 100000
)

// ask asks one host.
func ask(ctx context.Context, c *Config, host string) (vms []VM, err error) {
	target, port, err := split(host)
	if err != nil {
		return nil, err
	}
	cred := c.For(target)
	if err := cred.check(); err != nil {
		return nil, err
	}
	if port != 0 {
		cred.Port = port
	}
	ctx, cancel := context.WithTimeout(ctx, cred.Timeout)
	defer cancel()
	// A decoder of foreign bytes that is not ours: what it does not expect is
	// that host's trouble alone.
	defer func() {
		if p := recover(); p != nil {
			vms, err = nil, fmt.Errorf("broken answer: %v", p)
		}
	}()
	s := newSession(ctx, target, &cred)
	if err := s.Connect(); err != nil {
		return nil, fault(ctx, err, cred.Timeout)
	}
	defer s.Conn.Close()
	vms, err = table(s)
	return vms, fault(ctx, err, cred.Timeout)
}

// split takes HOST, HOST:PORT or [ADDRESS]:PORT; without a port it is 0.
func split(host string) (target string, port uint16, err error) {
	h, p, err := net.SplitHostPort(host)
	if err != nil {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || h == "" {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", p)
	}
	return h, uint16(n), nil
}

var authProtocols = map[string]gosnmp.SnmpV3AuthProtocol{
	"sha": gosnmp.SHA, "sha224": gosnmp.SHA224, "sha256": gosnmp.SHA256, "sha384": gosnmp.SHA384, "sha512": gosnmp.SHA512,
}

var privProtocols = map[string]gosnmp.SnmpV3PrivProtocol{
	"aes": gosnmp.AES, "aes192": gosnmp.AES192, "aes256": gosnmp.AES256,
}

func newSession(ctx context.Context, target string, c *Credentials) *gosnmp.GoSNMP {
	s := &gosnmp.GoSNMP{
		Target: target, Port: c.Port, Context: ctx,
		Timeout: c.Timeout / tries, Retries: tries - 1,
		Version: gosnmp.Version2c, Community: c.Community,
	}
	if c.Version != "3" {
		return s
	}
	s.Version, s.Community, s.ContextName = gosnmp.Version3, "", c.Context
	s.SecurityModel, s.MsgFlags = gosnmp.UserSecurityModel, gosnmp.NoAuthNoPriv
	u := &gosnmp.UsmSecurityParameters{
		UserName: c.User, AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv,
	}
	if p, ok := authProtocols[c.AuthProtocol]; ok {
		s.MsgFlags = gosnmp.AuthNoPriv
		u.AuthenticationProtocol, u.AuthenticationPassphrase = p, c.AuthPassword
	}
	if p, ok := privProtocols[c.PrivProtocol]; ok {
		s.MsgFlags = gosnmp.AuthPriv
		u.PrivacyProtocol, u.PrivacyPassphrase = p, c.PrivPassword
	}
	s.SecurityParameters = u
	return s
}

// fault is err in words for a person.
func fault(ctx context.Context, err error, limit time.Duration) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, gosnmp.ErrMaxRetriesExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer within %v", limit)
	case strings.Contains(err.Error(), "not authentic"), errors.Is(err, gosnmp.ErrUnknownUsername), errors.Is(err, gosnmp.ErrWrongDigest):
		// Its report about a user or password that it does not know is not
		// signed, so it is not for gosnmp to believe (RFC 3414, 3.2).
		return errors.New("wrong user or password")
	}
	return err
}

const (
	vmNumber = ".1.3.6.1.2.1.236.1.2.0"
	vmEntry  = ".1.3.6.1.2.1.236.1.4.1"
)

// table reads vmTable. It is not gosnmp's walk, which takes an error in the
// middle for the end.
func table(s *gosnmp.GoSNMP) ([]VM, error) {
	r, err := s.Get([]string{vmNumber})
	if err != nil {
		return nil, err
	}
	if r.Error != gosnmp.NoError || len(r.Variables) != 1 || r.Variables[0].Type != gosnmp.Integer {
		return nil, errNoMIB
	}
	var rows rows
	last, reps := instance{}, uint32(repetitions)
	at := vmEntry
	for n := 0; n < maxVars; {
		r, err := s.GetBulk([]string{at}, 0, reps)
		switch {
		case err != nil:
			return nil, err
		case r.Error == gosnmp.TooBig && reps > 1:
			reps /= 2
			continue
		case r.Error != gosnmp.NoError:
			return nil, fmt.Errorf("snmpd answers with %v", r.Error)
		case len(r.Variables) == 0:
			return nil, errors.New("snmpd answers with nothing")
		}
		for _, v := range r.Variables {
			i, ok := parseName(v.Name)
			if !ok || v.Type == gosnmp.EndOfMibView {
				return rows.vms(), nil
			}
			if !last.before(i) {
				return nil, fmt.Errorf("snmpd goes around in circles at %s", v.Name)
			}
			last, at = i, v.Name
			rows.add(i, v.Value)
			n++
		}
	}
	return nil, fmt.Errorf("more than %d values", maxVars)
}
