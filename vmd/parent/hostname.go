package parent

// hostName returns name if it is a legal name of a host (RFC 1123, 2.1), for a
// local interface's DHCP; a VM's name need not be one.
func hostName(name string) string {
	label := 0
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		switch {
		case alnum:
			label++
		case c == '-' && label > 0 && i+1 < len(name) && name[i+1] != '.':
			label++
		case c == '.' && label > 0 && i+1 < len(name):
			label = 0
		default:
			return ""
		}
		if label > 63 {
			return ""
		}
	}
	return name
}
