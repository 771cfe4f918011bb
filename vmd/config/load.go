package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"

	"vmd/net/addr"
)

const (
	// maxDepth is how deep files may include files.
	maxDepth = 16
	// maxFiles and maxBytes bound what one Load reads, and maxBytes also what
	// macros may expand to: files that include or expand each other twice over
	// would grow without end.
	maxFiles = 1024
	maxBytes = 16 << 20
)

// Options are what Load needs from outside. The zero value reads the host's
// own files.
type Options struct {
	// Macros are definitions "name=value" from the command line. They win over
	// the file's.
	Macros []string
	// Optional accepts a file that does not exist as an empty one: it is for
	// the default path.
	Optional bool
	// Base is what is loaded already when the file only adds to it: its global
	// settings stay until the file changes them, and its switches and VMs can
	// be named. They are not copied into the result.
	Base *Config
	// CPUs is the number of the host's CPUs, which is the default of parallel.
	// Zero asks the host.
	CPUs int

	FS    FS    // nil is the host's
	Users Users // nil is the host's
}

// Load reads the file at path and everything it includes, checks every
// definition and returns the whole, or an *Error with all that is wrong.
func Load(path string, opt Options) (*Config, error) {
	p := newParser(opt)
	data, err := p.read(path)
	switch {
	case err == nil:
		if real, err := p.fs.Realpath(path); err == nil {
			p.open = append(p.open, real)
		}
		p.include(path, data)
	case opt.Optional && errors.Is(err, fs.ErrNotExist):
	default:
		p.report(Message{File: path, Text: "open configuration: " + cause(err)})
	}
	p.finish()
	if len(p.errors) > 0 {
		return nil, &Error{Messages: p.errors, Warnings: p.warnings}
	}
	p.cfg.Warnings = p.warnings
	return p.cfg, nil
}

// newParser applies the defaults of the options.
func newParser(opt Options) *parser {
	if opt.FS == nil {
		opt.FS = hostFS{}
	}
	if opt.Users == nil {
		opt.Users = hostUsers{}
	}
	if opt.CPUs < 1 {
		opt.CPUs = runtime.NumCPU()
	}
	p := &parser{
		fs:          opt.FS,
		users:       newCachedUsers(opt.Users),
		base:        opt.Base,
		cfg:         &Config{},
		budget:      maxBytes,
		badVMs:      map[string]bool{},
		badSwitches: map[string]bool{},
	}
	p.defaults(opt.CPUs)
	for _, m := range opt.Macros {
		if err := p.macros.defineOption(m); err != nil {
			p.warn(Message{Text: err.Error()})
		}
	}
	return p
}

// defaults sets the global settings that hold if the file says nothing.
func (p *parser) defaults(cpus int) {
	if b := p.base; b != nil {
		p.cfg.LocalPrefix, p.cfg.LocalInet6, p.cfg.LocalPrefix6 = b.LocalPrefix, b.LocalInet6, b.LocalPrefix6
		p.cfg.LocalDNS = slices.Clone(b.LocalDNS)
		p.cfg.SocketOwner, p.cfg.AgentX = b.SocketOwner, b.AgentX
		p.cfg.Parallel, p.cfg.Delay = b.Parallel, b.Delay
		return
	}
	p.cfg.LocalPrefix = addr.Default4
	p.cfg.SocketOwner = Owner{HasGID: true}
	if gid, err := p.users.Group(SocketGroup); err == nil {
		p.cfg.SocketOwner.GID = gid
	}
	p.cfg.AgentX = defaultAgentX()
	p.cfg.Parallel = cpus
	p.cfg.Delay = DefaultDelay
}

// read returns the bytes of a file.
func (p *parser) read(name string) ([]byte, error) {
	if p.files++; p.files > maxFiles {
		return nil, fmt.Errorf("more than %d files are included", maxFiles)
	}
	f, err := p.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(p.budget)+1))
	if err != nil {
		return nil, err
	}
	if !p.spend(len(data)) {
		return nil, fmt.Errorf("the configuration is larger than %d bytes", maxBytes)
	}
	return data, nil
}

// spend takes n bytes from what may still be read or expanded.
func (p *parser) spend(n int) bool {
	p.budget -= n
	if p.budget < 0 {
		p.budget = 0
		return false
	}
	return true
}

// include parses the bytes of a file as if they stood at the current place.
// Blocks do not reach from one file into another.
func (p *parser) include(name string, data []byte) {
	if i := bytes.IndexAny(data, "\x00\x01\x02"); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte{'\n'})
		p.report(Message{File: name, Line: line, Text: fmt.Sprintf("byte 0x%02x is not allowed: this is no text file", data[i])})
		return
	}
	// Editors of other systems leave these marks, which mean nothing.
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	outer := p.source
	p.source = source{lex: newLexer(p, name, data)}
	p.parseFile()
	p.source = outer
}

// includeFile carries out an include statement.
func (p *parser) includeFile(name string) error {
	if len(p.open) >= maxDepth {
		return p.fail("include %s: files include each other more than %d deep", clip(name), maxDepth)
	}
	real, err := p.fs.Realpath(name)
	if err != nil {
		return p.fail("include %s: %s", clip(name), cause(err))
	}
	for _, o := range p.open {
		if o == real {
			return p.fail("include %s: the file includes itself", clip(name))
		}
	}
	data, err := p.read(name)
	if err != nil {
		return p.fail("include %s: %s", clip(name), cause(err))
	}
	p.open = append(p.open, real)
	p.include(name, data)
	p.open = p.open[:len(p.open)-1]
	return nil
}

// cause strips what the message says already: the operation and the path.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
