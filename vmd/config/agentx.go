package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	// DefaultProcessorIndex is where net-snmp's HOST-RESOURCES-MIB begins to
	// number processors on Linux: hrDeviceIndex of CPU n is 196608 + n.
	DefaultProcessorIndex = 3 << 16

	maxProcessorIndex = 1<<31 - 1 - 1<<16 // room for every CPU below 2^31
	maxArcs           = 128               // RFC 2578, 3.5
)

// AgentX is the agentx statement.
type AgentX struct {
	Enabled bool
	Path    string // absolute path of the master agent's socket
	Context string // SNMP context; "" is the default one

	// The rest is an extension.

	PerVM, Bulk    bool     // which notifications are sent, unless a manager says otherwise
	ReadOnly       bool     // managers may not say otherwise
	ObjectID       []uint32 // vmHvObjectID; none is 0.0
	ProcessorIndex int32    // hrDeviceIndex of CPU 0 at the master agent
	VMInfo         bool     // serve the table of VMWARE-VMINFO-MIB as well
}

func defaultAgentX() AgentX {
	return AgentX{Path: DefaultMaster, PerVM: true, ProcessorIndex: DefaultProcessorIndex}
}

// notifications are the arguments of agentx notifications.
var notifications = map[string]struct{ perVM, bulk bool }{
	"none": {}, "per-vm": {perVM: true}, "bulk": {bulk: true}, "both": {perVM: true, bulk: true},
}

// agentxStatement is: agentx { context STRING | path STRING | extension }
func (p *parser) agentxStatement() error {
	p.cfg.AgentX.Enabled = true
	for {
		t := p.peek()
		rule := p.agentxExtension
		switch {
		case t.keyword("context"):
			rule = p.agentxContext
		case t.keyword("path"):
			rule = p.agentxPath
		case t.kind != tokWord:
			return nil
		case agentxOptions[t.text] == nil:
			return p.unexpected("the end of the line", append(slices.Sorted(maps.Keys(agentxOptions)), "context", "path")...)
		}
		if err := rule(); err != nil {
			return err
		}
	}
}

func (p *parser) agentxContext() error {
	p.take()
	s, err := p.str("an SNMP context")
	if err != nil {
		return err
	}
	if len(s) > maxContext || hasControl(s) {
		return p.fail("agentx context %s is longer than %d bytes or has control bytes", clip(s), maxContext)
	}
	p.cfg.AgentX.Context = s
	return nil
}

func (p *parser) agentxPath() error {
	p.take()
	s, err := p.str("the path of the AgentX socket")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(s, "/") || len(s) > maxMaster {
		return p.fail("agentx path %s is not absolute or longer than %d bytes", clip(s), maxMaster)
	}
	p.cfg.AgentX.Path = s
	return nil
}

// agentxOptions are the extensions. Their words mean something here only: an
// unquoted string has no place behind agentx.
var agentxOptions = map[string]func(*parser) error{
	"notifications":   (*parser).agentxNotifications,
	"object-id":       (*parser).agentxObjectID,
	"processor-index": (*parser).agentxProcessorIndex,
	"readonly":        func(p *parser) error { p.cfg.AgentX.ReadOnly = true; return nil },
	"vminfo":          func(p *parser) error { p.cfg.AgentX.VMInfo = true; return nil },
}

func (p *parser) agentxExtension() error { return agentxOptions[p.take().text](p) }

func (p *parser) agentxNotifications() error {
	on, ok := notifications[p.peek().text]
	if !ok || p.peek().kind != tokWord {
		return p.unexpected("none, per-vm, bulk or both")
	}
	p.take()
	p.cfg.AgentX.PerVM, p.cfg.AgentX.Bulk = on.perVM, on.bulk
	return nil
}

func (p *parser) agentxObjectID() error {
	s, err := p.str("an object identifier")
	if err != nil {
		return err
	}
	if p.cfg.AgentX.ObjectID, err = objectID(s); err != nil {
		return p.fail("agentx object-id %s: %v", clip(s), err)
	}
	return nil
}

func (p *parser) agentxProcessorIndex() error {
	n, err := p.number("agentx processor-index", 1, maxProcessorIndex)
	p.cfg.AgentX.ProcessorIndex = int32(n)
	return err
}

// objectID parses the dotted form, with or without a dot in front. The first
// two arcs are what BER has room for (RFC 2578, 3.5; X.690, 8.19).
func objectID(s string) ([]uint32, error) {
	words := strings.Split(strings.TrimPrefix(s, "."), ".")
	if len(words) < 2 || len(words) > maxArcs {
		return nil, fmt.Errorf("not an object identifier of 2 to %d numbers", maxArcs)
	}
	oid := make([]uint32, len(words))
	for i, w := range words {
		n, err := strconv.ParseUint(w, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s is not a number below 2^32", clip(w))
		}
		oid[i] = uint32(n)
	}
	if oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil, fmt.Errorf("no object identifier begins with %d.%d", oid[0], oid[1])
	}
	return oid, nil
}
