package watch

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// maxKeySize bounds the DER of a key: an RSA key of 16384 bits has 9.3 KB.
// Checking a key costs more than the square of its size.
const maxKeySize = 12 << 10

func isKey(b *pem.Block) bool {
	return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
}

func keysAmong(blocks []*pem.Block) []*pem.Block {
	var keys []*pem.Block
	for _, b := range blocks {
		if isKey(b) {
			keys = append(keys, b)
		}
	}
	return keys
}

// wipe overwrites decoded keys.
func wipe(blocks []*pem.Block) {
	for _, b := range keysAmong(blocks) {
		clear(b.Bytes)
	}
}

type publicKey interface{ Equal(crypto.PublicKey) bool }

// publicHalf returns the public half of the one key among the blocks. Nothing
// of the private half leaves this function, not even in an error.
func publicHalf(path string, blocks []*pem.Block) (publicKey, *Fault) {
	keys := keysAmong(blocks)
	switch len(keys) {
	case 1:
	case 0:
		return nil, newFault(NoKey, path, "name the file with the private key", "%s holds no private key, only %s", show(path), contents(blocks))
	default:
		return nil, newFault(SeveralKeys, path, "leave only the key that belongs to the leaf", "%s holds %d private keys", show(path), len(keys))
	}
	b := keys[0]
	if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") || b.Headers["DEK-Info"] != "" {
		return nil, newFault(EncryptedKey, path, "store it without a passphrase: openssl pkey -in FILE -out FILE.new",
			"the private key in %s is encrypted with a passphrase", show(path))
	}
	if len(b.Bytes) > maxKeySize {
		return nil, newFault(BadKey, path, "servers use RSA keys of 2048 to 4096 bits, or ECDSA", "the private key in %s is larger than any that servers use", show(path))
	}
	if b.Type == "OPENSSH PRIVATE KEY" {
		return nil, newFault(BadKey, path, "name the key of the certificate", "the private key in %s is an OpenSSH key", show(path))
	}
	private := parseKey(b.Bytes)
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, newFault(BadKey, path, "check it: openssl pkey -in FILE -noout -check", "the private key in %s cannot be parsed as RSA, ECDSA or Ed25519", show(path))
	}
	public, ok := signer.Public().(publicKey)
	if !ok {
		return nil, newFault(BadKey, path, "use an RSA, ECDSA or Ed25519 key", "the private key in %s is of a type that is not known", show(path))
	}
	return public, nil
}

// parseKey tries all three forms whatever the label says, as servers do.
func parseKey(der []byte) crypto.PrivateKey {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k
	}
	return nil
}

// match says how the key and the chain of certificates do not belong together.
func match(certPath, keyPath string, chain []*x509.Certificate, key publicKey) *Fault {
	if key.Equal(chain[0].PublicKey) {
		return nil
	}
	for i, c := range chain[1:] {
		if key.Equal(c.PublicKey) {
			return newFault(LeafNotFirst, certPath, "write the leaf first, then its issuer", "%s does not start with the leaf: the key belongs to certificate %d", show(certPath), i+2)
		}
	}
	if i := leafAt(chain); i > 0 {
		return leafNotFirst(certPath, i)
	}
	leafType, keyType := typeName(chain[0].PublicKey), typeName(key)
	if leafType != keyType {
		return newFault(OtherKeyType, keyPath, "write the key that was made with this certificate, before any server reloads",
			"%s holds an %s key and the leaf in %s needs an %s key: nginx would accept this and then fail every handshake",
			show(keyPath), keyType, show(certPath), leafType)
	}
	return newFault(OtherKey, keyPath, "write the key that was made with this certificate, before any server reloads",
		"the key in %s does not belong to the leaf in %s", show(keyPath), show(certPath))
}

func leafNotFirst(path string, at int) *Fault {
	return newFault(LeafNotFirst, path, "write the leaf first, then its issuer",
		"%s does not start with the leaf: it starts with a CA certificate, the leaf is certificate %d", show(path), at+1)
}

func typeName(public any) string {
	switch public.(type) {
	case *rsa.PublicKey:
		return "RSA"
	case *ecdsa.PublicKey:
		return "ECDSA"
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return "unknown"
}
