package small

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/e2e/harness"
	"vmd/internal/imsg"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
)

// Descriptors that take for ever to be closed keep nobody waiting but who sent
// them, whatever the daemon does with the request that they come with.
func slowDescriptors(t *testing.T, d *harness.Daemon) {
	for _, request := range []vmop.StartRequest{
		{Files: []string{"kernel"}},
		{Files: []string{"sesame"}},
		{VM: vmop.Ref{Name: "a"}, Define: &vmop.Definition{Kernel: "/k"}, Files: []string{"kernel"}},
		{VM: vmop.Ref{Name: "b"}, Template: "a", Files: []string{"disk0"}},
	} {
		body, err := imsg.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		packet := []byte{1, 0}
		packet = binary.LittleEndian.AppendUint16(packet, uint16(vmop.Start))
		packet = binary.LittleEndian.AppendUint64(packet, 1)
		for range 4 { // one of them at least is the last copy when the daemon closes it
			c := dial(t)
			f, _ := testenv.SlowFile(t)
			if _, _, err := c.WriteMsgUnix(append(packet, body...), unix.UnixRights(int(f.Fd())), nil); err != nil {
				t.Fatal(err)
			}
			go f.Close()
		}
		served(t, d)
	}
	for range 8 { // and those that nobody receives go with the connection
		c := dial(t)
		f, _ := testenv.SlowFile(t)
		for _, packet := range [][]byte{list(t), []byte("what is no message")} {
			if _, err := c.Write(packet); err != nil {
				t.Fatal(err)
			}
		}
		// Turned away already, perhaps: who has sent so much is one of many.
		_, _, _ = c.WriteMsgUnix(make([]byte, 12), unix.UnixRights(int(f.Fd())), nil)
		go f.Close()
	}
	served(t, d)
}
