package subagent

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gosnmp/gosnmp"

	"vmd/internal/vmop"
)

func setting(name string, typ gosnmp.Asn1BER, value any) gosnmp.SnmpPDU {
	return gosnmp.SnmpPDU{Name: vmMIB + "." + name, Type: typ, Value: value}
}

// A SET of anything is answered as RFC 3416, 4.2.5, has it, and changes all of its
// variables or none.
func TestSets(t *testing.T) {
	h, names, values := everyState(t, vmop.SNMPConfig{})
	h.await(fmt.Sprintf("1.2.0=%d", len(stateCases)))
	perVM, bulk := setting("1.9.0", gosnmp.Integer, 2), setting("1.10.0", gosnmp.Integer, 1)
	refused := func(what string, code gosnmp.SNMPError, index uint8, vars ...gosnmp.SnmpPDU) {
		t.Helper()
		r, err := h.client.Set(vars)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if r.Error != code || r.ErrorIndex != index {
			t.Errorf("%s: error %v at %d, want %v at %d", what, r.Error, r.ErrorIndex, code, index)
		}
		if got := h.get("1.9.0", "1.10.0"); !slices.Equal(got, []string{"1.9.0=1", "1.10.0=2"}) {
			t.Errorf("%s: the switches are %s", what, got)
		}
	}
	for _, v := range []gosnmp.SnmpPDU{
		setting("1.9.0", gosnmp.OctetString, "1"), setting("1.9.0", gosnmp.Null, nil),
		setting("1.9.0", gosnmp.Gauge32, uint32(1)), setting("1.9.0", gosnmp.Counter64, uint64(1)),
		setting("1.9.0", gosnmp.TimeTicks, uint32(1)), setting("1.9.0", gosnmp.ObjectIdentifier, "1.3.6"),
		setting("1.9.0", gosnmp.IPAddress, "127.0.0.1"),
	} {
		refused(fmt.Sprintf("a %v", v.Type), gosnmp.WrongType, 1, v)
		refused(fmt.Sprintf("a %v behind a good one", v.Type), gosnmp.WrongType, 2, bulk, v)
	}
	for _, n := range []int{0, 3, -1, 1<<31 - 1, -1 << 31} {
		refused(fmt.Sprint(n), gosnmp.WrongValue, 1, setting("1.10.0", gosnmp.Integer, n), perVM)
		refused(fmt.Sprint(n, " behind"), gosnmp.WrongValue, 2, perVM, setting("1.10.0", gosnmp.Integer, n))
	}
	for _, name := range []string{"1.9", "1.9.1", "1.9.0.0", "1.10", "1.10.2"} {
		refused(name, gosnmp.NoCreation, 1, setting(name, gosnmp.Integer, 1))
	}
	// Everything else, in whatever state its VM is: no object but the two.
	for _, name := range names {
		o := dotted(name)
		if o == "1.9.0" || o == "1.10.0" {
			continue
		}
		refused(o+" "+values[o], gosnmp.NotWritable, 1, setting(o, gosnmp.Integer, 1))
	}
	for _, name := range []string{"1.11.0", "1.4.1.1.1", "1.4.1.5.99", "1.6.1.2.1.1.196608", "0.1", "2.1.1", "9.9.9"} {
		refused(name, gosnmp.NotWritable, 2, bulk, setting(name, gosnmp.Integer, 1))
	}
	reader := h.client
	h.client = h.manager("public")
	refused("a reader's", gosnmp.NoAccess, 1, perVM)
	h.client = reader

	r, err := h.client.Set([]gosnmp.SnmpPDU{perVM, bulk})
	if err != nil || r.Error != gosnmp.NoError {
		t.Fatalf("a good one: %v, %v", r, err)
	}
	if got := h.get("1.9.0", "1.10.0"); !slices.Equal(got, []string{"1.9.0=2", "1.10.0=1"}) {
		t.Errorf("after a good one the switches are %s", got)
	}
	// And the other way round, in one with the same variable twice: the last wins.
	h.set(gosnmp.NoError, 0, 9, 2, 9, 1, 10, 2)
	h.await("1.9.0=1")
	h.configure(func(c *vmop.SNMPConfig) { c.ReadOnly = true })
	for h.setCode() != gosnmp.NotWritable { // until it has arrived
	}
	refused("with readonly", gosnmp.NotWritable, 1, perVM)
}
