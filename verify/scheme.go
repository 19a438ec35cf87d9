package verify

import "slices"

// A scheme says how a certificate is reached behind a URL scheme: directly by
// TLS, or after a dialogue in plain text (see starttls.go).
type scheme struct {
	name     string
	port     uint16 // registered default; 0: the URL must name one
	starttls bool
}

// Direct TLS first, then what upgrades.
var schemes = [...]scheme{
	{name: "https", port: 443},
	{name: "tls"},
	{name: "smtps", port: 465},
	{name: "imaps", port: 993},
	{name: "pop3s", port: 995},
	{name: "ldaps", port: 636},
	{name: "ftps", port: 990},
	{name: "nntps", port: 563},
	{name: "ircs", port: 6697},
	{name: "mqtts", port: 8883},
	{name: "amqps", port: 5671},
	{name: "rediss", port: 6379},
	{name: "dot", port: 853},
	{name: "sips", port: 5061},
	{name: "xmpps-client", port: 5223},
	{name: "xmpps-server", port: 5270},
	{name: "smtp", port: 25, starttls: true},
	{name: "submission", port: 587, starttls: true},
	{name: "imap", port: 143, starttls: true},
	{name: "pop3", port: 110, starttls: true},
}

// Schemes that are real but that this version cannot probe.
var futureSchemes = [...]string{
	"h3", "lmtp", "sieve", "ftp", "nntp", "irc", "xmpp-client", "xmpp-server",
	"ldap", "postgres", "mysql", "rdp", "nats",
}

// Schemes lists the endpoint schemes this version can probe.
func Schemes() []string {
	names := make([]string, 0, len(schemes))
	for _, s := range schemes {
		names = append(names, s.name)
	}
	return names
}

func findScheme(name string) (scheme, bool) {
	for _, s := range schemes {
		if s.name == name {
			return s, true
		}
	}
	return scheme{}, false
}

func isFuture(name string) bool { return slices.Contains(futureSchemes[:], name) }

// nearestScheme returns the known scheme closest to name, or "" when none is
// close enough to be what was meant.
func nearestScheme(name string) string {
	best, least := "", 3
	if len(name) > 32 {
		return ""
	}
	for _, s := range schemes {
		// At most half of a name may be wrong, so "x" does not become "tls".
		if d := editDistance(name, s.name); d < least && 2*d <= len(s.name) {
			best, least = s.name, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance between two short ASCII words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
