package vmop

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"vmd/internal/imsg"
)

// clientTypes are the messages of the control protocol and their payloads.
var clientTypes = []struct {
	typ     Type
	name    string
	payload any
}{
	{List, "List", ListRequest{}},
	{Start, "Start", StartRequest{}},
	{Stop, "Stop", StopRequest{}},
	{Wait, "Wait", WaitRequest{}},
	{Pause, "Pause", VMRequest{}},
	{Unpause, "Unpause", VMRequest{}},
	{Console, "Console", ConsoleRequest{}},
	{Break, "Break", VMRequest{}},
	{Log, "Log", LogRequest{}},
	{Load, "Load", LoadRequest{}},
	{Reload, "Reload", nil},
	{Reset, "Reset", ResetRequest{}},
	{Send, "Send", SendRequest{}},
	{Receive, "Receive", ReceiveRequest{}},
	{Count, "Count", StatsRequest{}},
	{Answer, "Answer", Result{}},
	{Records, "Records", VMList{}},
	{Counted, "Counted", StatsList{}},
}

// document is PROTOCOL.md: for each section, the rows of its tables.
type document map[string][][]string

func readDocument(t *testing.T) (document, string) {
	t.Helper()
	b, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	d := make(document)
	section, head := "", true
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			section = strings.TrimLeft(line, "# ")
		}
		if !strings.HasPrefix(line, "|") {
			head = true
			continue
		}
		if head || strings.HasPrefix(line, "| ---") {
			head = false
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		d[section] = append(d[section], cells)
	}
	return d, string(b)
}

func TestDocumentedTypes(t *testing.T) {
	d, _ := readDocument(t)
	rows := d["Messages"]
	if len(rows) != len(clientTypes) {
		t.Errorf("%d types are documented, want %d", len(rows), len(clientTypes))
	}
	for i, c := range clientTypes {
		payload := "none"
		if c.payload != nil {
			payload = reflect.TypeOf(c.payload).Name()
		}
		want := []string{strconv.Itoa(int(c.typ)), c.name, payload}
		if i >= len(rows) || !reflect.DeepEqual(rows[i][:3], want) {
			t.Errorf("row %d is not %v", i, want)
		}
	}
}

func TestDocumentedCodes(t *testing.T) {
	d, _ := readDocument(t)
	rows := d["Codes"]
	for c := OK; ; c++ {
		name := c.String()
		if strings.HasPrefix(name, "Code(") {
			if int(c) != len(rows) {
				t.Errorf("%d codes are documented, want %d", len(rows), c)
			}
			return
		}
		if int(c) >= len(rows) || rows[c][0] != strconv.Itoa(int(c)) || rows[c][1] != name {
			t.Errorf("code %d %s is not documented in its place", c, name)
		}
	}
}

func TestDocumentedStates(t *testing.T) {
	d, _ := readDocument(t)
	var want []string
	for s := Stopped; s.String() != "unknown"; s++ {
		want = append(want, fmt.Sprintf("%d %s", s, s))
	}
	for _, row := range d["VM"] {
		if row[1] == "State" && row[3] != strings.Join(want, ", ") {
			t.Errorf("states %q, want %q", row[3], strings.Join(want, ", "))
		}
	}
}

// Every struct that a client meets has a section with its keys, in order.
func TestDocumentedFields(t *testing.T) {
	d, _ := readDocument(t)
	seen := make(map[reflect.Type]bool)
	for _, c := range clientTypes {
		if c.payload != nil {
			checkStruct(t, d, reflect.TypeOf(c.payload), seen)
		}
	}
	for section, rows := range d {
		if len(rows[0]) == 4 && rows[0][0] == "1" && section != "Messages" {
			found := false
			for typ := range seen {
				found = found || typ.Name() == section
			}
			if !found {
				t.Errorf("%s is documented, but no message has it", section)
			}
		}
	}
}

func checkStruct(t *testing.T, d document, typ reflect.Type, seen map[reflect.Type]bool) {
	if seen[typ] {
		return
	}
	seen[typ] = true
	rows := d[typ.Name()]
	if len(rows) != typ.NumField() {
		t.Errorf("%s: %d fields are documented, want %d", typ.Name(), len(rows), typ.NumField())
		return
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag := strings.Split(f.Tag.Get("cbor"), ",")
		opt := len(tag) == 3 && tag[2] == "omitempty"
		name, inner := cborType(f.Type)
		if inner != nil {
			checkStruct(t, d, inner, seen)
		}
		row := rows[i]
		if row[0] != tag[0] || row[1] != f.Name || row[2] != name || strings.HasPrefix(row[3], "opt") != opt {
			t.Errorf("%s: row %q, want key %s, %s, %s, opt %v", typ.Name(), row, tag[0], f.Name, name, opt)
		}
	}
}

// cborType is how the document calls a type, and the struct in it if any.
func cborType(typ reflect.Type) (name string, inner reflect.Type) {
	switch typ.Kind() {
	case reflect.Pointer:
		return cborType(typ.Elem())
	case reflect.Struct:
		return typ.Name(), typ
	case reflect.Array:
		return "bytes", nil
	case reflect.Slice:
		name, inner = cborType(typ.Elem())
		return "[" + name + "]", inner
	case reflect.String:
		return "text", nil
	case reflect.Bool:
		return "bool", nil
	case reflect.Int, reflect.Int64:
		return "int", nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "uint", nil
	}
	return typ.String(), nil
}

func TestDocumentedExamples(t *testing.T) {
	_, text := readDocument(t)
	for _, v := range []any{
		StopRequest{VM: Ref{Name: "web"}, Wait: true, Timeout: 30},
		Result{ID: 1, Name: "web"},
		Result{Code: ErrTimeout, Detail: "web is still shutting down", ID: 1, Name: "web"},
		ListRequest{Running: true},
		StartRequest{
			VM: Ref{Name: "lab"},
			Define: &Definition{
				MemoryBytes: 512 << 20,
				Kernel:      "/boot/vmlinuz",
				Disks:       []DiskDef{{Path: "/var/vm/lab.img", Format: "raw"}},
			},
			Files: []string{"kernel", "disk0"},
		},
	} {
		b, err := imsg.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		diag, err := cbor.Diagnose(b)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, "\n    "+diag+"\n") {
			t.Errorf("no example %s", diag)
		}
	}
}

func TestDocumentedLimits(t *testing.T) {
	_, text := readDocument(t)
	for _, want := range []string{
		fmt.Sprintf("request's payload has at most %d bytes, an answer's at most %d", MaxRequest, imsg.MaxPayload),
		fmt.Sprintf("at most\n%d descriptors", imsg.MaxFiles),
		fmt.Sprintf("At most %d VMs.", MaxRecords),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document does not say %q", want)
		}
	}
}

// The largest VMs there can be fit into a message in the number promised, with
// what control adds to it.
func TestRecordsFit(t *testing.T) {
	long := strings.Repeat("x", 1023)
	vm := VM{
		Name: strings.Repeat("x", 63), OSType: long[:255], TTY: "/dev/pts/1000000", LastExit: long[:512],
		MemoryBytes: 1 << 60, Resident: 1 << 60, Started: 1 << 60, OwnerUID: 1 << 31, OwnerGID: 1 << 31,
	}
	for range 5 {
		vm.Disks = append(vm.Disks, Disk{Path: long, Format: "qcow2", Size: 1 << 60, Used: 1 << 60, ReadOnly: true})
		vm.Past.Disks = append(vm.Past.Disks, DiskTotals{1 << 60, 1 << 60, 1 << 60, 1 << 60, 1 << 60, 1 << 60})
	}
	for range 4 {
		vm.NICs = append(vm.NICs, NIC{Tap: long[:15], Switch: long[:63], Address: long[:64], IfIndex: 1 << 31, BridgeIndex: 1 << 31})
	}
	for range 64 {
		vm.Past.VCPU = append(vm.Past.VCPU, 1<<60)
	}
	list := VMList{}
	for range MaxRecords {
		list.VMs = append(list.VMs, vm)
	}
	body, err := imsg.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	b, err := imsg.Marshal(Envelope{Client: 1 << 63, Type: Records, Body: body})
	if err != nil || len(b) > imsg.MaxPayload {
		t.Errorf("%d bytes, %v; a message has %d at most", len(b), err, imsg.MaxPayload)
	}
}

// The largest request fits into its envelope.
func TestRequestFits(t *testing.T) {
	body, err := imsg.Marshal(strings.Repeat("x", MaxRequest-3))
	if err != nil || len(body) != MaxRequest {
		t.Fatal(len(body), err)
	}
	b, err := imsg.Marshal(Envelope{Client: 1 << 63, Type: Load, Body: body})
	if err != nil || len(b) > imsg.MaxPayload {
		t.Errorf("%d bytes, %v; a message has %d at most", len(b), err, imsg.MaxPayload)
	}
}

// FuzzDecode gives every client message arbitrary bytes. What is decoded can be
// encoded, and then is the same.
func FuzzDecode(f *testing.F) {
	for _, c := range clientTypes {
		if c.payload != nil {
			b, err := imsg.Marshal(c.payload)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint16(c.typ), b)
		}
	}
	full, err := imsg.Marshal(VMList{VMs: []VM{{ID: 1, Name: "a", Disks: []Disk{{Path: "/x"}}, NICs: []NIC{{Tap: "tap0"}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(Records), full)
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		for _, c := range clientTypes {
			if uint16(c.typ) != typ || c.payload == nil {
				continue
			}
			v := reflect.New(reflect.TypeOf(c.payload))
			if err := imsg.Unmarshal(b, v.Interface()); err != nil {
				return
			}
			again, err := imsg.Marshal(v.Interface())
			if err != nil {
				t.Fatalf("%+v was decoded but cannot be encoded: %v", v, err)
			}
			w := reflect.New(reflect.TypeOf(c.payload))
			if err := imsg.Unmarshal(again, w.Interface()); err != nil {
				t.Fatalf("%+v cannot be decoded again: %v", v, err)
			}
			third, err := imsg.Marshal(w.Interface())
			if err != nil || string(third) != string(again) {
				t.Fatalf("%x became %x, %v", again, third, err)
			}
		}
	})
}
