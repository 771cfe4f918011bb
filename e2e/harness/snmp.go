package harness

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"vmd/internal/testenv"
)

// VMMIB is vmMIB (RFC 7666).
const VMMIB = ".1.3.6.1.2.1.236"

// Variable is one object of a walk.
type Variable struct {
	OID   string
	Type  string // as "Integer", "OctetString", "Gauge32"
	Value any    // int64, uint64, string, or nil
}

// Walk asks a master agent for all below oid with GETNEXT, as SNMPv2c.
func Walk(t testing.TB, m *testenv.MasterAgent, oid string) []Variable {
	t.Helper()
	var vars []Variable
	withClient(t, m, func(c *gosnmp.GoSNMP) error {
		return c.Walk(oid, func(p gosnmp.SnmpPDU) error {
			vars = append(vars, variable(p))
			return nil
		})
	})
	return vars
}

// Get asks a master agent for one object.
func Get(t testing.TB, m *testenv.MasterAgent, oid string) Variable {
	t.Helper()
	var v Variable
	withClient(t, m, func(c *gosnmp.GoSNMP) error {
		p, err := c.Get([]string{oid})
		if err == nil && len(p.Variables) != 1 {
			err = fmt.Errorf("%d variables for one question", len(p.Variables))
		}
		if err == nil {
			v = variable(p.Variables[0])
		}
		return err
	})
	return v
}

func withClient(t testing.TB, m *testenv.MasterAgent, f func(*gosnmp.GoSNMP) error) {
	t.Helper()
	host, port, err := net.SplitHostPort(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	c := &gosnmp.GoSNMP{
		Target: host, Port: uint16(number), Community: m.ReadOnly,
		Version: gosnmp.Version2c, Timeout: 10 * time.Second, Retries: 2,
	}
	if err := c.Connect(); err != nil {
		t.Fatalf("snmp to %s: %v", m.Addr, err)
	}
	defer c.Conn.Close()
	if err := f(c); err != nil {
		t.Fatalf("snmp to %s: %v", m.Addr, err)
	}
}

func variable(p gosnmp.SnmpPDU) Variable {
	v := Variable{OID: p.Name, Type: p.Type.String()}
	switch value := p.Value.(type) {
	case []byte:
		v.Value = string(value)
	case string:
		v.Value = value
	case int:
		v.Value = int64(value)
	case uint, uint32, uint64:
		v.Value = gosnmp.ToBigInt(value).Uint64()
	}
	return v
}

// Column returns the rows of one column of a walk: index to value. column is
// the OID of the column.
func Column(vars []Variable, column string) map[string]any {
	rows := make(map[string]any)
	for _, v := range vars {
		if index, ok := strings.CutPrefix(v.OID, column+"."); ok {
			rows[index] = v.Value
		}
	}
	return rows
}
