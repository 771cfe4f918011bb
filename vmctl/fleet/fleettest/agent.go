// Package fleettest is a host with VMs as far as SNMP is concerned, for tests:
// an SNMPv2c agent that serves the vmTable it is given.
package fleettest

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/gosnmp/gosnmp"
)

// Community is what an Agent wants to hear.
const Community = "fleet"

// Var is one variable of an Agent.
type Var struct {
	OID   string // from ".1"
	Type  byte   // of gosnmp: 2 Integer, 4 OctetString, 67 TimeTicks, 70 Counter64
	Value any
}

// Types of a Var.
const (
	Integer     = byte(gosnmp.Integer)
	OctetString = byte(gosnmp.OctetString)
	TimeTicks   = byte(gosnmp.TimeTicks)
	Counter64   = byte(gosnmp.Counter64)
)

// Agent answers on a UDP port of 127.0.0.1 until Close.
type Agent struct {
	Addr string // host:port

	conn net.PacketConn
	vars []gosnmp.SnmpPDU
	oids [][]uint64 // their names
	max  int        // variables in one answer
	err  gosnmp.SNMPError
}

// Fail makes every GETBULK end with an SNMP error.
func (a *Agent) Fail(status uint8) { a.err = gosnmp.SNMPError(status) }

// New starts an agent. It answers TooBig to more than max repetitions.
func New(max int, vars ...Var) (*Agent, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &Agent{Addr: conn.LocalAddr().String(), conn: conn, max: max}
	for _, v := range vars {
		a.vars = append(a.vars, gosnmp.SnmpPDU{Name: v.OID, Type: gosnmp.Asn1BER(v.Type), Value: v.Value})
		a.oids = append(a.oids, arcs(v.OID))
	}
	go a.serve()
	return a, nil
}

// Close ends the agent.
func (a *Agent) Close() { a.conn.Close() }

func (a *Agent) serve() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := a.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		p, err := (&gosnmp.GoSNMP{Version: gosnmp.Version2c}).SnmpDecodePacket(slices.Clone(buf[:n]))
		if err != nil || p.Community != Community || len(p.Variables) == 0 {
			continue
		}
		a.answer(p)
		if b, err := p.MarshalMsg(); err == nil {
			a.conn.WriteTo(b, from)
		}
	}
}

func (a *Agent) answer(p *gosnmp.SnmpPacket) {
	name := p.Variables[0].Name
	kind := p.PDUType
	p.PDUType = gosnmp.GetResponse
	if kind == gosnmp.GetRequest {
		p.Variables[0].Type = gosnmp.NoSuchObject
		for _, v := range a.vars {
			if v.Name == name {
				p.Variables[0] = v
			}
		}
		return
	}
	reps := int(p.MaxRepetitions)
	p.NonRepeaters, p.MaxRepetitions = 0, 0
	switch {
	case a.err != 0:
		p.Error, p.ErrorIndex = a.err, 1
		return
	case reps > a.max:
		p.Error = gosnmp.TooBig
		return
	}
	p.Variables = nil
	after := arcs(name)
	for i, v := range a.vars {
		if len(p.Variables) < reps && slices.Compare(after, a.oids[i]) < 0 {
			p.Variables = append(p.Variables, v)
		}
	}
	if len(p.Variables) < reps {
		p.Variables = append(p.Variables, gosnmp.SnmpPDU{Name: name, Type: gosnmp.EndOfMibView})
	}
}

func arcs(oid string) (n []uint64) {
	for s := range strings.SplitSeq(strings.Trim(oid, "."), ".") {
		v, _ := strconv.ParseUint(s, 10, 32)
		n = append(n, v)
	}
	return n
}

// Table is vmNumber and the vmTable of VMs, which are numbered from 1.
func Table(vms ...VM) []Var {
	vars := []Var{{".1.3.6.1.2.1.236.1.2.0", Integer, len(vms)}}
	for _, c := range columns {
		for i, vm := range vms {
			vars = append(vars, Var{fmt.Sprintf(".1.3.6.1.2.1.236.1.4.1.%d.%d", c.column, i+1), c.typ, c.value(i, &vm)})
		}
	}
	return vars
}

// VM is what a test says of a row; the rest is made up.
type VM struct {
	Name        string
	Admin, Oper int
	Ticks       uint32 // vmUpTime
}

var columns = []struct {
	column int
	typ    byte
	value  func(i int, vm *VM) any
}{
	{2, OctetString, func(_ int, vm *VM) any { return vm.Name }},
	{3, OctetString, func(i int, _ *VM) any { return string([]byte{15: byte(i + 1)}) }},
	{4, OctetString, func(int, *VM) any { return "" }},
	{5, Integer, func(_ int, vm *VM) any { return vm.Admin }},
	{6, Integer, func(_ int, vm *VM) any { return vm.Oper }},
	{7, Integer, func(int, *VM) any { return 2 }},
	{8, Integer, func(int, *VM) any { return 2 }},
	{9, Integer, func(int, *VM) any { return 2 }},
	{12, Integer, func(int, *VM) any { return 1 << 20 }},
	{13, Integer, func(_ int, vm *VM) any {
		if vm.Ticks == 0 {
			return 0
		}
		return 512
	}},
	{15, Integer, func(int, *VM) any { return 512 }},
	{16, TimeTicks, func(_ int, vm *VM) any { return vm.Ticks }},
	{17, Counter64, func(int, *VM) any { return uint64(1_500_000) }},
}
