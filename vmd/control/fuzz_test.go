package control

import (
	"net"
	"testing"

	"vmd/internal/imsg"
	"vmd/internal/vmop"
)

// FuzzClient sends arbitrary packets as one client and checks that another one
// is served. The input is a row of packets, each after a byte with its length.
func FuzzClient(f *testing.F) {
	pack := func(packets ...[]byte) []byte {
		var b []byte
		for _, p := range packets {
			b = append(append(b, byte(len(p))), p...)
		}
		return b
	}
	request := func(typ vmop.Type, v any) []byte {
		b := []byte{1, 0, byte(typ), 0, 1, 0, 0, 0, 0, 0, 0, 0}
		if v == nil {
			return b
		}
		body, err := imsg.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		return append(b, body...)
	}
	f.Add(pack([]byte("garbage")))
	f.Add(pack(request(vmop.Reload, nil), request(vmop.List, vmop.ListRequest{Running: true})))
	f.Add(pack(request(vmop.Start, vmop.StartRequest{
		VM:     vmop.Ref{Name: "web"},
		Define: &vmop.Definition{CPUs: 2, Disks: []vmop.DiskDef{{Path: "/a", Format: "raw"}}},
		Files:  []string{"disk0"},
	})))
	for typ, r := range requests {
		if r.body != nil {
			f.Add(pack(request(typ, r.body())))
		}
	}
	rig := newRig(f, fast())
	rig.serve()
	good := rig.dial()
	id := uint64(0)
	f.Fuzz(func(t *testing.T, b []byte) {
		sock, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: rig.path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			if _, err := sock.Write(b[1 : 1+n]); err != nil {
				break // disconnected, which is one of the right answers
			}
			b = b[1+n:]
		}
		sock.Close()
		id++
		send(t, good, vmop.List, id, vmop.ListRequest{})
		if res := result(t, good, id); res.Name != "served" {
			t.Errorf("the other client was answered %+v", res)
		}
	})
}
