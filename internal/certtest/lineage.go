package certtest

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Kinds are the four files of a certbot lineage, in the order in which certbot
// writes them and switches their links: the key is switched before the
// fullchain, so for a moment the two do not match.
var Kinds = [...]string{"cert", "privkey", "chain", "fullchain"}

// Lineage is one certificate under the roof of certbot's configuration
// directory (/etc/letsencrypt): archive/NAME/KINDn.pem, the relative links
// live/NAME/KIND.pem, and renewal/NAME.conf.
type Lineage struct {
	Dir  string // certbot's configuration directory
	Name string

	version int           // the newest in the archive
	linked  int           // the one the links show
	key     crypto.Signer // of version
	keyFile string        // the file it lies in, within the archive
}

// NewLineage writes a lineage with leaf as version 1, as certbot does for a new
// certificate: the links first, dangling, then the files.
func NewLineage(dir, name string, leaf *Leaf) (*Lineage, error) {
	l := &Lineage{Dir: dir, Name: name}
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{filepath.Join(dir, "renewal"), 0o755},
		{filepath.Join(dir, "archive"), 0o700},
		{filepath.Join(dir, "live"), 0o700},
		{l.ArchiveDir(), 0o755},
		{l.LiveDir(), 0o755},
	} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return nil, err
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return nil, err
		}
	}
	for _, kind := range Kinds {
		if err := os.Symlink(l.target(kind, 1), l.Live(kind)); err != nil {
			return nil, err
		}
	}
	if _, err := l.Archive(leaf); err != nil {
		return nil, err
	}
	l.linked = 1
	readme := "This directory holds the links to the newest files of " + name + ".\n"
	if err := os.WriteFile(filepath.Join(l.LiveDir(), "README"), []byte(readme), 0o644); err != nil {
		return nil, err
	}
	return l, l.writeConf()
}

// LiveDir is live/NAME.
func (l *Lineage) LiveDir() string { return filepath.Join(l.Dir, "live", l.Name) }

// ArchiveDir is archive/NAME.
func (l *Lineage) ArchiveDir() string { return filepath.Join(l.Dir, "archive", l.Name) }

// Conf is renewal/NAME.conf.
func (l *Lineage) Conf() string { return filepath.Join(l.Dir, "renewal", l.Name+".conf") }

// Live is the link of one kind.
func (l *Lineage) Live(kind string) string { return filepath.Join(l.LiveDir(), kind+".pem") }

// Fullchain is live/NAME/fullchain.pem.
func (l *Lineage) Fullchain() string { return l.Live("fullchain") }

// Key is live/NAME/privkey.pem.
func (l *Lineage) Key() string { return l.Live("privkey") }

// File is the archived file of one kind and version.
func (l *Lineage) File(kind string, version int) string {
	return filepath.Join(l.ArchiveDir(), fmt.Sprintf("%s%d.pem", kind, version))
}

// Version is the newest version in the archive.
func (l *Lineage) Version() int { return l.version }

// Renew adds leaf to the archive and switches the links to it.
func (l *Lineage) Renew(leaf *Leaf) error {
	version, err := l.Archive(leaf)
	if err != nil {
		return err
	}
	return l.Switch(version)
}

// Archive writes leaf as the next version without switching the links: what is
// on disk between certbot's two steps. The key comes first and is readable by
// its owner only; the same key again (--reuse-key) becomes a link to the file it
// first came in.
func (l *Lineage) Archive(leaf *Leaf) (version int, err error) {
	version = l.version + 1
	reuse := false
	if k, ok := l.key.(interface{ Equal(crypto.PrivateKey) bool }); ok {
		reuse = k.Equal(leaf.Key)
	}
	if reuse {
		if err := os.Symlink(l.keyFile, l.File("privkey", version)); err != nil {
			return 0, err
		}
	} else {
		l.key, l.keyFile = leaf.Key, filepath.Base(l.File("privkey", version))
	}
	for _, f := range []struct {
		kind string
		data []byte
		mode fs.FileMode
	}{
		{"privkey", leaf.KeyPEM(), 0o600},
		{"cert", leaf.CertPEM(), 0o644},
		{"chain", leaf.ChainPEM(), 0o644},
		{"fullchain", leaf.FullchainPEM(), 0o644},
	} {
		if f.kind == "privkey" && reuse {
			continue
		}
		if err := os.WriteFile(l.File(f.kind, version), f.data, f.mode); err != nil {
			return 0, err
		}
		if err := os.Chmod(l.File(f.kind, version), f.mode); err != nil {
			return 0, err
		}
	}
	l.version = version
	if version > 1 {
		if err := l.writeConf(); err != nil {
			return 0, err
		}
	}
	return version, nil
}

// Switch moves the four links to version by certbot's own protocol: links
// previous_KIND.pem to what was current, then unlink and symlink kind by kind
// (not atomic: each link is missing for a moment), then the previous links go.
func (l *Lineage) Switch(version int) error {
	if err := l.AddPrevious(); err != nil {
		return err
	}
	for _, kind := range Kinds {
		if err := l.SwitchKind(kind, version); err != nil {
			return err
		}
	}
	l.linked = version
	return l.RemovePrevious()
}

// AddPrevious makes the links previous_KIND.pem, which let the next run of
// certbot undo a switch that was interrupted.
func (l *Lineage) AddPrevious() error {
	for _, kind := range Kinds {
		if err := os.Symlink(l.File(kind, l.linked), l.previous(kind)); err != nil {
			return err
		}
	}
	return nil
}

// SwitchKind moves the link of one kind: one quarter of Switch.
func (l *Lineage) SwitchKind(kind string, version int) error {
	if err := os.Remove(l.Live(kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(l.target(kind, version), l.Live(kind))
}

// RemovePrevious ends a switch.
func (l *Lineage) RemovePrevious() error {
	for _, kind := range Kinds {
		if err := os.Remove(l.previous(kind)); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes the lineage as certbot delete does.
func (l *Lineage) Remove() error {
	return errors.Join(os.Remove(l.Conf()), os.RemoveAll(l.LiveDir()), os.RemoveAll(l.ArchiveDir()))
}

func (l *Lineage) previous(kind string) string {
	return filepath.Join(l.LiveDir(), "previous_"+kind+".pem")
}

func (l *Lineage) target(kind string, version int) string {
	return filepath.Join("..", "..", "archive", l.Name, fmt.Sprintf("%s%d.pem", kind, version))
}

func (l *Lineage) writeConf() error {
	conf := "# renew_before_expiry = 30 days\nversion = 2.1.0\narchive_dir = " + l.ArchiveDir() + "\n"
	for _, kind := range Kinds {
		conf += kind + " = " + l.Live(kind) + "\n"
	}
	conf += "\n# Options used in the renewal process\n[renewalparams]\nauthenticator = webroot\nkey_type = ecdsa\n"
	// certbot writes the configuration beside and renames it.
	temp := l.Conf() + ".new"
	if err := os.WriteFile(temp, []byte(conf), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, l.Conf())
}

// WritePair writes leaf as a plain pair of files, in place and certificate
// first, so that for a moment the new certificate lies beside the old key.
func WritePair(cert, key string, leaf *Leaf) error {
	if err := os.WriteFile(cert, leaf.FullchainPEM(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(key, leaf.KeyPEM(), 0o600)
}

// WriteLego writes leaf into dir as the lego command does: .crt, .issuer.crt,
// .key and .json, in place and in this order. It returns the paths of
// certificate and key.
func WriteLego(dir, name string, leaf *Leaf) (cert, key string, err error) {
	about, err := json.MarshalIndent(map[string]string{
		"domain":        name,
		"certUrl":       "https://ca.invalid/certificate/" + leaf.Serial(),
		"certStableUrl": "https://ca.invalid/certificate/" + leaf.Serial(),
	}, "", "\t")
	if err != nil {
		return "", "", err
	}
	base := filepath.Join(dir, name)
	for _, f := range []struct {
		path string
		data []byte
	}{
		{base + ".crt", leaf.FullchainPEM()},
		{base + ".issuer.crt", leaf.ChainPEM()},
		{base + ".key", leaf.KeyPEM()},
		{base + ".json", about},
	} {
		if err := os.WriteFile(f.path, f.data, 0o600); err != nil {
			return "", "", err
		}
	}
	return base + ".crt", base + ".key", nil
}
