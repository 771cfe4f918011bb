package control

import (
	"fmt"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// Who may ask for something at all. What a user may ask about which VM, parent
// decides; it also looks at these again.
type who int

const (
	anyone who = iota
	rootOnly
)

// rule is what control knows about a kind of request.
type rule struct {
	who   who
	files int        // the most descriptors that may come with it
	cost  int        // see limits.rate
	body  func() any // a value of the payload's type; nil: there is no payload
}

// recordsPerPoint is how many messages of a list cost a point more: how long a
// list is, is known when it comes.
const recordsPerPoint = 4

// maxFiles is a kernel, an initial RAM disk, a CD-ROM and four disks.
const maxFiles = 7

// requests is everything that a client can ask for.
var requests = map[vmop.Type]rule{
	vmop.List:    {anyone, 0, 5, payload[vmop.ListRequest]},
	vmop.Count:   {anyone, 0, 5, payload[vmop.StatsRequest]},
	vmop.Start:   {anyone, maxFiles, 10, payload[vmop.StartRequest]},
	vmop.Stop:    {anyone, 0, 1, payload[vmop.StopRequest]},
	vmop.Wait:    {anyone, 0, 1, payload[vmop.WaitRequest]},
	vmop.Pause:   {anyone, 0, 1, payload[vmop.VMRequest]},
	vmop.Unpause: {anyone, 0, 1, payload[vmop.VMRequest]},
	vmop.Console: {anyone, 0, 5, payload[vmop.ConsoleRequest]},
	vmop.Break:   {anyone, 0, 1, payload[vmop.VMRequest]},
	vmop.Log:     {rootOnly, 0, 1, payload[vmop.LogRequest]},
	vmop.Load:    {rootOnly, 0, 5, payload[vmop.LoadRequest]},
	vmop.Reload:  {rootOnly, 0, 5, nil},
	vmop.Reset:   {rootOnly, 0, 5, payload[vmop.ResetRequest]},
	vmop.Send:    {rootOnly, 1, 5, payload[vmop.SendRequest]},
	vmop.Receive: {rootOnly, 1, 5, payload[vmop.ReceiveRequest]},
}

func payload[T any]() any { return new(T) }

// check says whether m of user uid may go to parent, and if not, why. ErrInvalid is
// for what no honest client sends.
func check(m *imsg.Msg, uid uint32) (code vmop.Code, detail string) {
	r, ok := requests[vmop.Type(m.Type)]
	switch {
	case !ok:
		return vmop.ErrUnsupported, fmt.Sprintf("no request has type %d", m.Type)
	case r.who == rootOnly && uid != 0:
		return vmop.ErrPermission, "only root may ask for this"
	case len(m.Files) > r.files:
		return vmop.ErrInvalid, fmt.Sprintf("%d descriptors with a request that takes %d", len(m.Files), r.files)
	case len(m.Payload) > vmop.MaxRequest:
		return vmop.ErrInvalid, fmt.Sprintf("payload of %d bytes, at most %d are taken", len(m.Payload), vmop.MaxRequest)
	case r.body == nil && len(m.Payload) > 0:
		return vmop.ErrInvalid, "payload with a request that has none"
	case r.body == nil:
		return vmop.OK, ""
	}
	v := r.body()
	if err := imsg.Unmarshal(m.Payload, v); err != nil {
		return vmop.ErrInvalid, "payload is not what the request has"
	}
	if start, ok := v.(*vmop.StartRequest); ok && len(start.Files) != len(m.Files) {
		return vmop.ErrInvalid, fmt.Sprintf("%d descriptors, %d names for them", len(m.Files), len(start.Files))
	}
	return vmop.OK, ""
}
