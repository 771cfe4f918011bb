package priv

import (
	"errors"
	"strings"
	"testing"

	"vmd/internal/vmop"
)

func TestHostileTapRequestsAreRefused(t *testing.T) {
	good := vmop.TapRequest{VM: 1, Name: "tap3", Alias: "vm1-if0-web", MAC: guestMAC, Bridge: "br-lan.7",
		Groups: []string{"dmz"}, Address4: "100.64.1.2/31", Address6: "fd00::1/96"}
	if _, err := portOf(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*vmop.TapRequest){
		"slash":             func(r *vmop.TapRequest) { r.Name = "../../x" },
		"16 bytes":          func(r *vmop.TapRequest) { r.Name = strings.Repeat("x", 16) },
		"control character": func(r *vmop.TapRequest) { r.Name = "tap\n1" },
		"zero byte":         func(r *vmop.TapRequest) { r.Name = "tap\x001" },
		"template":          func(r *vmop.TapRequest) { r.Name = "eth%d" },
		"colon":             func(r *vmop.TapRequest) { r.Name = "eth0:1" },
		"space":             func(r *vmop.TapRequest) { r.Name = "tap 1" },
		"not ASCII":         func(r *vmop.TapRequest) { r.Name = "täp1" },
		"dot":               func(r *vmop.TapRequest) { r.Name = "." },
		"two dots":          func(r *vmop.TapRequest) { r.Name = ".." },
		"bridge with slash": func(r *vmop.TapRequest) { r.Bridge = "a/b" },
		"bridge too long":   func(r *vmop.TapRequest) { r.Bridge = strings.Repeat("x", 16) },
		"alias too long":    func(r *vmop.TapRequest) { r.Alias = strings.Repeat("x", 256) },
		"alias of lines":    func(r *vmop.TapRequest) { r.Alias = "vm1\nvm2" },
		"group":             func(r *vmop.TapRequest) { r.Groups = []string{"a", ""} },
		"many groups":       func(r *vmop.TapRequest) { r.Groups = make([]string, maxGroups+1) },
		"no address":        func(r *vmop.TapRequest) { r.MAC = [6]byte{} },
		"multicast address": func(r *vmop.TapRequest) { r.MAC[0] |= 1 },
		"negative queues":   func(r *vmop.TapRequest) { r.Queues = -1 },
		"many queues":       func(r *vmop.TapRequest) { r.Queues = 1 << 30 },
		"IPv4 garbage":      func(r *vmop.TapRequest) { r.Address4 = "100.64.1.2" },
		"IPv6 as IPv4":      func(r *vmop.TapRequest) { r.Address4 = "fd00::1/96" },
		"IPv4 as IPv6":      func(r *vmop.TapRequest) { r.Address6 = "100.64.1.2/31" },
		"mapped":            func(r *vmop.TapRequest) { r.Address6 = "::ffff:10.0.0.1/128" },
		"unspecified":       func(r *vmop.TapRequest) { r.Address4 = "0.0.0.0/0" },
		"multicast":         func(r *vmop.TapRequest) { r.Address6 = "ff02::1/128" },
		"loopback":          func(r *vmop.TapRequest) { r.Address4 = "127.0.0.1/8" },
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			spoil(&r)
			if p, err := portOf(r); !errors.Is(err, errInvalid) {
				t.Errorf("got %+v, %v; want %v", p, err, errInvalid)
			}
		})
	}
}

// The default group comes last, and not into parent's own slice.
func TestGroupsOfATap(t *testing.T) {
	groups := make([]string, 1, 4)
	groups[0] = "dmz"
	p, err := portOf(vmop.TapRequest{MAC: guestMAC, Groups: groups})
	if err != nil || len(p.Groups) != 2 || p.Groups[0] != "dmz" || p.Groups[1] != "tap" {
		t.Errorf("got %q, %v", p.Groups, err)
	}
	if groups[:2][1] != "" {
		t.Errorf("parent's slice became %q", groups[:2])
	}
}
