package watch

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxHistory bounds Observation.History.
	maxHistory = 64
	// maxNames bounds how many names of one directory are looked at.
	maxNames = 1 << 16
)

// history returns the leaves in certbot's archive besides the present one,
// oldest first. cert must be .../live/NAME/FILE, and real, the file behind it,
// must lie in .../archive/NAME; in every other layout there is no history.
func history(cert, real string, leaf *x509.Certificate) []*x509.Certificate {
	live := filepath.Dir(cert)
	name := filepath.Base(live)
	archive := filepath.Dir(real)
	if filepath.Base(filepath.Dir(live)) != "live" || filepath.Base(archive) != name || filepath.Base(filepath.Dir(archive)) != "archive" {
		return nil
	}
	want, err := stat(filepath.Join(filepath.Dir(filepath.Dir(live)), "archive", name))
	if err != nil {
		return nil
	}
	if got, err := stat(archive); err != nil || got.inode != want.inode {
		return nil
	}
	entries, err := entriesIn(archive)
	if err != nil {
		return nil
	}
	// cert12.pem and fullchain12.pem both hold leaf 12; the first is shorter.
	versions := make(map[int]string)
	for _, e := range entries {
		name := e.Name()
		for _, kind := range []string{"cert", "fullchain"} {
			n, ok := version(name, kind)
			if ok && (versions[n] == "" || kind == "cert") {
				versions[n] = name
			}
		}
	}
	numbers := make([]int, 0, len(versions))
	for n := range versions {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	var leaves []*x509.Certificate
	// Newest first until there are enough; what cannot be read is no history.
	for i, n := range slices.Backward(numbers) {
		if len(leaves) == maxHistory || len(numbers)-i > 4*maxHistory {
			break
		}
		c := firstCertificate(filepath.Join(archive, versions[n]))
		if c == nil || c.Equal(leaf) || slices.ContainsFunc(leaves, c.Equal) {
			continue
		}
		leaves = append(leaves, c)
	}
	slices.Reverse(leaves)
	return leaves
}

// version reads the number of certbot's KINDn.pem.
func version(name, kind string) (int, bool) {
	digits, ok := strings.CutPrefix(name, kind)
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, ".pem")
	if !ok || digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil
}

func firstCertificate(path string) *x509.Certificate {
	if id, err := stat(path); err != nil || notRegular(path, id) != nil {
		return nil
	}
	data, _, fault, err := read(path)
	if fault != nil || err != nil {
		return nil
	}
	for {
		b, rest := pem.Decode(data)
		if b == nil {
			return nil
		}
		if isCertificate(b) {
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil
			}
			return c
		}
		data = rest
	}
}

// entriesIn lists a directory, as much of it as is looked at.
func entriesIn(dir string) ([]os.DirEntry, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxNames)
	if len(entries) == 0 && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return entries, nil
}
