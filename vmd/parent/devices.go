package parent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// tunDevice is what priv makes taps with; nothing works without priv.
const tunDevice = "/dev/net/tun"

// checkTUN refuses a host on which priv would die again and again.
func checkTUN(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: is the module tun loaded?", err)
	}
	return nil
}

// noKVM is why there is no KVM, and what to look at if the host seems to have
// none.
func noKVM(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: is kvm_amd or kvm_intel loaded, and virtualization on in the host's firmware?", err)
	}
	return err
}

// checkKVM warns of what each start is going to say: modules may come later.
func (p *parent) checkKVM() {
	f, err := p.host.openKVM()
	if err != nil {
		p.log.Warn().Err(noKVM(err)).Msg("no VM can be started")
		return
	}
	f.Close()
}
