// Package notation prints MAC addresses and UUIDs as people write them, the
// same everywhere.
package notation

import "fmt"

// MAC returns m as six pairs of digits with colons between, as vm.conf(5) and
// ip(8) have it.
func MAC(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// UUID returns u in the text form of RFC 9562, 4.
func UUID(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
