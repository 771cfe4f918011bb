package parent

import "testing"

func TestHostName(t *testing.T) {
	for name, ok := range map[string]bool{
		"web": true, "web-1": true, "a.b": true, "1a": true,
		"": true, "a_b": false, "-a": false, "a-": false, "a..b": false, "a.": false, "a-.b": false, ".a": false,
	} {
		if got := hostName(name); (got == name) != ok {
			t.Errorf("%q: %q, want ok %v", name, got, ok)
		}
	}
}
