package harness

// Rest waits for the end of the stream and returns what the guest said since
// the last Expect.
func (c *Console) Rest() string {
	c.t.Helper()
	c.Ended()
	rest := string(c.seen.Bytes()[c.pos:])
	c.pos = c.seen.Len()
	return rest
}
