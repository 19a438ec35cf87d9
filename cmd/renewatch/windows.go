package main

import (
	// The zones of reload windows, for an image that has no zoneinfo.
	_ "time/tzdata"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/reload"
)

// windows returns when a server may be reloaded.
func windows(c config.Server) reload.Windows {
	var out reload.Windows
	for _, w := range c.Windows {
		out = append(out, reload.Window{Days: w.Days, From: w.From, To: w.To, Zone: w.Zone})
	}
	return out
}
