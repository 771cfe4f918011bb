package virtio

import "testing"

// A driver that does not let itself be told what a device can reach gets none.
func TestLimitedAccess(t *testing.T) {
	for _, tt := range []struct {
		name     string
		limited  bool
		features uint64
		status   uint8
	}{
		{"not limited", false, VIRTIO_F_VERSION_1, dok},
		{"not limited, accepted unasked", false, VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM, drv},
		{"accepted", true, VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM, dok},
		{"not accepted", true, VIRTIO_F_VERSION_1, drv},
		{"nothing else accepted", true, VIRTIO_F_ACCESS_PLATFORM, drv},
	} {
		c, _, _ := testCore(t, &dummy{})
		if tt.limited {
			c.LimitAccess()
		}
		if got := c.Features()&VIRTIO_F_ACCESS_PLATFORM != 0; got != tt.limited {
			t.Errorf("%s: offered %v", tt.name, got)
		}
		c.SetDriverFeatures(tt.features)
		for _, s := range []uint8{ack, drv, fok, dok} {
			c.SetStatus(s)
		}
		if got := c.Status(); got != tt.status {
			t.Errorf("%s: status %#x, want %#x", tt.name, got, tt.status)
		}
		c.Reset()
		if got := c.Features()&VIRTIO_F_ACCESS_PLATFORM != 0; got != tt.limited {
			t.Errorf("%s: offered %v after a reset", tt.name, got)
		}
	}
}
