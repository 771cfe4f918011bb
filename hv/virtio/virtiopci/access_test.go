package virtiopci_test

import (
	"strings"
	"testing"

	"vmd/hv/virtio/virtiopci"
)

// Only drivers of virtio 1.x can be told of what a device cannot reach.
func TestLimitedAccessNeedsModern(t *testing.T) {
	for _, i := range []virtiopci.Interface{virtiopci.Transitional, virtiopci.Legacy} {
		_, err := virtiopci.New(nil, nil, &echo{}, virtiopci.Options{Interface: i, LimitedAccess: true})
		if err == nil || !strings.Contains(err.Error(), "virtio 0.9") {
			t.Errorf("interface %d: error %v", i, err)
		}
	}
}
