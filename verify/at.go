package verify

import "net/netip"

// At returns the endpoint dialled at ap instead of what its name resolves to,
// with the same name to be verified.
func (e Endpoint) At(ap netip.AddrPort) Endpoint {
	e.addresses = canonicalAddress(ap, e.port)
	return e
}

// MailSamples is how many samples of a mail server are taken at most at a time.
const MailSamples = mailSamples
