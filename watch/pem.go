package watch

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
)

var (
	pemBegin = []byte("-----BEGIN ")
	utf8BOM  = []byte("\xef\xbb\xbf")
)

// decode returns all PEM blocks of data or says what is wrong. It is stricter
// than encoding/pem, which passes over a damaged block in silence: a fullchain
// that was cut short would load as a leaf alone.
func decode(path string, data []byte) ([]*pem.Block, *Fault) {
	if f := notText(path, data); f != nil {
		return nil, f
	}
	begins, f := blockStarts(path, data)
	if f != nil {
		return nil, f
	}
	var blocks []*pem.Block
	rest := data
	for {
		b, r := pem.Decode(rest)
		if b == nil {
			break
		}
		blocks = append(blocks, b)
		rest = r
	}
	if len(blocks) != len(begins) {
		return nil, damagedBlock(path, data, begins)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, newFault(HalfWritten, path, "wait for the writer to finish, or remove what follows the last block",
			"%s ends in text that belongs to no PEM block, as if it was cut off", show(path))
	}
	return blocks, nil
}

// notText recognises files that are no PEM at all.
func notText(path string, data []byte) *Fault {
	text := bytes.TrimSpace(data)
	switch {
	case len(text) == 0:
		return newFault(Empty, path, "a full disk or a writer that was stopped leaves this; renew, or restore the file", "%s is empty", show(path))
	case bytes.HasPrefix(data, utf8BOM), bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return newFault(ByteOrderMark, path, "save it as plain ASCII without a byte order mark",
			"%s starts with a byte order mark, so servers pass over its first block", show(path))
	case bytes.Contains(data, pemBegin):
	case len(data) > 2 && data[0] == 0x30 && (data[1] == 0x80 || data[1] == 0x81 || data[1] == 0x82 || data[1] == 0x83):
		if _, err := x509.ParseCertificate(data); err == nil {
			return newFault(BinaryForm, path, "convert it: openssl x509 -inform der -in FILE -out FILE.pem", "%s is a certificate in DER form, not PEM", show(path))
		}
		return newFault(BinaryForm, path, "convert it to PEM with openssl x509, pkcs7 or pkcs12", "%s is in a binary form (DER, PKCS #7 or PKCS #12), not PEM", show(path))
	}
	switch {
	case bytes.IndexByte(data, 0) >= 0:
		return newFault(NULBytes, path, "a crash or a full disk leaves this; renew, or restore the file", "%s holds NUL bytes", show(path))
	case bytes.Contains(data, pemBegin):
		return nil
	case bytes.HasPrefix(pemBegin, text):
		return newFault(HalfWritten, path, "wait for the writer to finish, or renew", "%s is cut off within its first line", show(path))
	}
	return newFault(NotPEM, path, "the file must hold blocks that start with -----BEGIN CERTIFICATE-----", "%s holds no PEM block", show(path))
}

// blockStarts finds where blocks begin; each must be at the start of a line.
func blockStarts(path string, data []byte) ([]int, *Fault) {
	var starts []int
	for from := 0; ; {
		i := bytes.Index(data[from:], pemBegin)
		if i < 0 {
			return starts, nil
		}
		i += from
		before := data[:i]
		switch {
		case i == 0 || data[i-1] == '\n':
		case bytes.HasSuffix(before, []byte("-----")):
			return nil, newFault(JoinedBlocks, path, "put each -----BEGIN line on a line of its own",
				"%s has no line break between block %d and the next one", show(path), len(starts))
		case bytes.HasSuffix(before, utf8BOM):
			return nil, newFault(ByteOrderMark, path, "save its parts as plain ASCII without a byte order mark and join them again",
				"%s has a byte order mark before block %d, so servers pass over it", show(path), len(starts)+1)
		default:
			return nil, newFault(BadPEM, path, "put each -----BEGIN line at the start of a line of its own, with LF or CR LF line breaks",
				"%s has block %d not at the start of a line", show(path), len(starts)+1)
		}
		starts = append(starts, i)
		from = i + len(pemBegin)
	}
}

// damagedBlock says which of the blocks encoding/pem did not decode.
func damagedBlock(path string, data []byte, starts []int) *Fault {
	for n, start := range starts {
		end := len(data)
		if n+1 < len(starts) {
			end = starts[n+1]
		}
		block := data[start:end]
		label, _, _ := strings.Cut(string(block[len(pemBegin):min(len(block), len(pemBegin)+64)]), "-----")
		if !bytes.Contains(block, []byte("-----END "+label+"-----")) {
			return newFault(HalfWritten, path, "wait for the writer to finish, or renew",
				"%s is half-written: block %d of %d is cut off", show(path), n+1, len(starts))
		}
		if b, _ := pem.Decode(block); b == nil {
			return newFault(BadPEM, path, "renew, or restore the file", "%s is damaged: block %d of %d is not valid base64", show(path), n+1, len(starts))
		}
	}
	return newFault(BadPEM, path, "renew, or restore the file", "%s is damaged: some of its %d blocks cannot be read", show(path), len(starts))
}

func isCertificate(b *pem.Block) bool {
	return b.Type == "CERTIFICATE" || b.Type == "X509 CERTIFICATE"
}

// chainOf parses the certificates among the blocks.
func chainOf(path string, blocks []*pem.Block) ([]*x509.Certificate, *Fault) {
	var chain []*x509.Certificate
	for n, b := range blocks {
		if b.Type == "TRUSTED CERTIFICATE" {
			return nil, newFault(BadCertificate, path, "convert it: openssl x509 -in FILE -out FILE.pem",
				"%s holds a certificate in OpenSSL's own trusted form (block %d)", show(path), n+1)
		}
		if !isCertificate(b) {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, newFault(BadCertificate, path, "renew, or restore the file", "%s holds a certificate that cannot be parsed (block %d): %s",
				show(path), n+1, show(strings.TrimPrefix(err.Error(), "x509: ")))
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, newFault(NoCertificate, path, "name the file that starts with the leaf, such as fullchain.pem", "%s holds no certificate, only %s", show(path), contents(blocks))
	}
	return chain, nil
}

// contents names what a file holds.
func contents(blocks []*pem.Block) string {
	if len(blocks) == 0 {
		return "other text"
	}
	var names []string
	for _, b := range blocks {
		name := "a block of another kind"
		switch {
		case isKey(b):
			name = "a private key"
		case isCertificate(b):
			name = "a certificate"
		case b.Type == "CERTIFICATE REQUEST" || b.Type == "NEW CERTIFICATE REQUEST":
			name = "a certificate request"
		case b.Type == "PUBLIC KEY" || b.Type == "RSA PUBLIC KEY":
			name = "a public key"
		case b.Type == "PKCS7" || b.Type == "CMS":
			name = "a PKCS #7 bundle"
		case strings.HasSuffix(b.Type, " PARAMETERS"):
			name = "parameters"
		case b.Type == "X509 CRL":
			name = "a revocation list"
		}
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
		if len(names) > 3 {
			names[3] = "more"
			break
		}
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return names[0]
}

// leafAt returns where the leaf probably is when no key tells: the first
// certificate that is no CA, in a file that starts with its issuer or the like.
func leafAt(chain []*x509.Certificate) int {
	if !chain[0].IsCA {
		return 0
	}
	for i, c := range chain {
		if !c.IsCA {
			return i
		}
	}
	return 0
}

const (
	// maxLinksVerified bounds the signatures checked in one file.
	maxLinksVerified = 8
	// maxRSABits bounds what one signature check costs.
	maxRSABits = 16384
)

// disorder says where the chain behind the leaf is out of order.
func disorder(path string, chain []*x509.Certificate) *Fault {
	for i := 1; i < len(chain); i++ {
		child, parent := chain[i-1], chain[i]
		if chain[i].Equal(chain[0]) {
			return newFault(ChainDisorder, path, "write each certificate once: the leaf, then its issuer, then the issuer's issuer",
				"%s holds the leaf a second time, as certificate %d", show(path), i+1)
		}
		follows := bytes.Equal(child.RawIssuer, parent.RawSubject)
		// The same key identifier says as much as the signature, at no cost.
		named := len(child.AuthorityKeyId) > 0 && bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId)
		if follows && !named && i <= maxLinksVerified && cheapToVerify(parent) {
			follows = child.CheckSignatureFrom(parent) == nil
		}
		if !follows {
			return newFault(ChainDisorder, path, "write the leaf, then its issuer, then the issuer's issuer",
				"%s is out of order: certificate %d is not the issuer of certificate %d", show(path), i+1, i)
		}
	}
	return nil
}

func cheapToVerify(c *x509.Certificate) bool {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}
