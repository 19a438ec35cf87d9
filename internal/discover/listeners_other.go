//go:build unix && !linux

package discover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

var nativeEndian = binary.NativeEndian

// listeners knows nothing here.
func listeners(context.Context, netip.AddrPort) ([]Listener, error) {
	return nil, fmt.Errorf("who listens on an address can only be seen on Linux: %w", errors.ErrUnsupported)
}

func (p *places) stat(int) (procStat, error) { return procStat{}, errors.ErrUnsupported }
