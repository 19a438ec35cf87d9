package verify

import (
	"crypto/x509"
	"time"
)

// Shorter-lived certificates are renewed at half of their life, others at a
// third before its end: what Let's Encrypt asks of clients.
const shortLifetime = 10 * 24 * time.Hour

// RenewalMargin returns r, the time before its end at which c ought to have
// been renewed: a third of its lifetime, or half of one under 10 days.
func RenewalMargin(c *x509.Certificate) time.Duration {
	life := c.NotAfter.Sub(c.NotBefore)
	if life < shortLifetime {
		return max(life/2, 0)
	}
	return life / 3
}

// MarginLeft returns how much of its RenewalMargin c has left at now: 1 when it
// ought to be renewed, more before, 0 at its end, less than 0 after.
func MarginLeft(c *x509.Certificate, now time.Time) float64 {
	r := RenewalMargin(c)
	if r <= 0 {
		return -1
	}
	return float64(c.NotAfter.Sub(now)) / float64(r)
}

// The fractions of the margin under which a certificate still in use is a
// warning, an error, critical.
const (
	warningMargin  = 0.85
	errorMargin    = 0.6
	criticalMargin = 0.3
)

// ExpirySeverity says how bad it is that c is still in use at now: Warning,
// Error and Critical under 0.85, 0.6 and 0.3 of its RenewalMargin.
func ExpirySeverity(c *x509.Certificate, now time.Time) Severity {
	switch left := MarginLeft(c, now); {
	case left < criticalMargin:
		return Critical
	case left < errorMargin:
		return Error
	case left < warningMargin:
		return Warning
	}
	return Info
}
