// Package verify tells what the network says: it dials every address of a TLS
// endpoint by itself, keeps the chain that is served even when the handshake
// goes on to fail, and judges it afterwards for time, name, chain and identity
// separately. It never returns an error: an endpoint that cannot be reached is a
// verdict too.
package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"time"
)

// Code is what is wrong (or right) with one address. The set is closed within
// one version; readers must expect more.
type Code string

// Every code, in order of precedence, worst first.
const (
	Unresolved      Code = "unresolved"
	Refused         Code = "refused"
	Unreachable     Code = "unreachable"
	Timeout         Code = "timeout"
	NotTLS          Code = "not_tls"
	StartTLSFailed  Code = "starttls_failed"
	HandshakeFailed Code = "handshake_failed"
	Expired         Code = "expired"
	NotYetValid     Code = "not_yet_valid"
	WrongName       Code = "wrong_name"
	Untrusted       Code = "untrusted"
	Mixed           Code = "mixed"
	Foreign         Code = "foreign"
	Stale           Code = "stale"
	Ahead           Code = "ahead"
	ChainIncomplete Code = "chain_incomplete"
	ChainDisorder   Code = "chain_disorder"
	PQIntolerant    Code = "pq_intolerant"
	Unverifiable    Code = "unverifiable"
	NotTestable     Code = "not_testable"
	Serving         Code = "serving"
)

// Severity is how bad a verdict is.
type Severity string

// The severities, mildest first.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Error    Severity = "error"
	Critical Severity = "critical"
)

// Fingerprint is the SHA-256 of a certificate's DER.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of c.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// Expectation is what an endpoint is expected to serve.
type Expectation struct {
	// Chain is the certificate file, leaf first, as it stands on disk. Empty:
	// nothing is expected, the endpoint is judged by itself (time, name, chain)
	// and can be neither stale nor foreign.
	Chain []*x509.Certificate
	// History holds the earlier and later leaves known of the same lineage. A
	// leaf in it (other than Chain[0]) is stale, or ahead when its notBefore is
	// later than that of Chain[0].
	History []Fingerprint
	// Siblings holds the leaves of other watched lineages: for the same name
	// they count as serving, not as foreign.
	Siblings []Fingerprint
	// Extra holds further CA certificates (an older chain of the lineage, say)
	// that help to tell an incomplete chain from an untrusted one.
	Extra []*x509.Certificate
	// AnyValid accepts every leaf that is valid, trusted and covers the name.
	AnyValid bool
}

// Verdict is what one address of one endpoint was found to serve.
type Verdict struct {
	Endpoint  Endpoint
	Address   netip.AddrPort // zero when the name gave no address
	Transport string         // "tcp"
	KeyType   string         // rsa, ecdsa, ed25519; "" when nothing was seen nor expected
	Code      Code           // the worst of Faults, else Serving, Unverifiable or NotTestable
	Faults    []Code         // worst first; empty when serving
	Severity  Severity
	Served    []*x509.Certificate // the chain of the last deciding sample; nil when none was seen
	Expected  *x509.Certificate   // leaf expected; nil when nothing was expected
	Samples   int                 // handshakes judged
	Matching  int                 // of these, with an accepted leaf: the expected one, or a sibling; all of them when nothing is expected
	Siblings  int                 // of Matching, with a leaf of another watched lineage
	Whole     bool                // by Confirm: the samples make a whole window, all accepted
	Took      time.Duration       // of the slowest sample
	Since     time.Time           // start of the unbroken run of samples with the expected leaf; zero when the last sample was another
	Tries     int                 // consecutive tries without a connection (refused, unreachable, timeout)
	DownSince time.Time           // the first of these
	Detail    string              // one sentence with the evidence
	Hint      string              // what a person can do
	// ResolverDown tells, with Unresolved, that the resolver failed (SERVFAIL, no
	// answer) and did not say that there is no such name: the fault may be ours.
	ResolverDown bool
	// Unheard tells, with Unverifiable, that the context ended before anything was
	// heard of this address: it says nothing about it.
	Unheard bool

	seen Severity // of what the samples showed, before Grade
}
