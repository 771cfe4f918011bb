package config

// extensions are the options of a VM whose words OpenBSD does not reserve, each
// with what its argument begins with.
var extensions = map[string]func(token) bool{
	"cmdline": token.isString,
	"cpus":    func(t token) bool { return t.kind == tokNumber },
	"initrd":  token.isString,
	"limit":   func(t token) bool { return t.is('{') },
	"os":      token.isString,
	"restart": func(t token) bool { return t.keyword("never") || t.keyword("on-failure") },
	"uuid":    token.isString,
	"virtio":  func(t token) bool { return t.keyword("modern") || t.keyword("transitional") },
}

// atExtension reports whether an option of a VM begins here that is an
// extension. OpenBSD would join its word to a string before it, as all that is
// not reserved; the argument tells which of the two is meant.
func (p *parser) atExtension() bool {
	t := p.peek()
	begins := extensions[t.text]
	return t.kind == tokWord && begins != nil && begins(p.peekAt(1))
}
