package vm

import "testing"

// The program goes on as if nothing had happened.
func TestTrimProgram(t *testing.T) {
	if err := trimProgram(); err != nil {
		t.Fatal(err)
	}
}
