package registry

import (
	"slices"

	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// owns reports whether a user is root, or is the owner o, or in its group.
func owns(o *config.Owner, p *vmop.Peer) bool {
	return p.UID == 0 || p.UID == o.UID || o.HasGID && inGroup(p, o.GID)
}

func inGroup(p *vmop.Peer, gid uint32) bool { return slices.Contains(p.Groups, gid) }

// may reports whether a user may act on v. While v runs, its owner is the one
// that it had when it was started.
func (v *vm) may(p *vmop.Peer) bool {
	if v.run != nil {
		return owns(&v.run.Def.Owner, p)
	}
	return owns(&v.def.Owner, p)
}

// mayInstantiate reports whether a user may make instances of a VM that is
// defined as d. Without "allow instance owner" nobody but root may; on OpenBSD
// whoever is in group 0 may, too.
func mayInstantiate(d *config.VM, p *vmop.Peer) bool {
	return p.UID == 0 || d.Allow.HasOwner && owns(&d.Allow.Owner, p)
}

// rootOnly are the requests that are root's alone. control refuses them too.
var rootOnly = map[vmop.Type]bool{
	vmop.Load: true, vmop.Reload: true, vmop.Reset: true, vmop.Log: true,
	vmop.Send: true, vmop.Receive: true,
}

// deny refuses what a user may not do, to v or, if that is nil, to what has the
// name, and has it logged.
func (r *Registry) deny(q Request, v *vm, name, why string) {
	l := Log{Level: Warn, Message: "request denied", Name: name, Detail: why, UID: &q.Peer.UID}
	if v != nil {
		l.ID, l.Name = v.known.ID, v.def.Name
	}
	r.do(l)
	r.refuse(q.From, v, vmop.ErrPermission, why)
}
