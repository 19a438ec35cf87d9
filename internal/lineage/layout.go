// Package lineage knows how ACME clients lay out their files: whose a certificate
// is, whether a run of that client is under way, and whether the file system
// below can be relied on to show a renewal. It reads only, and holds no lock.
package lineage

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Client is an ACME client, as its layout tells.
type Client string

// The clients whose layout is known.
const (
	NoClient   Client = "" // a plain file; whoever wrote it is not known
	Certbot    Client = "certbot"
	Dehydrated Client = "dehydrated"
	AcmeSh     Client = "acme.sh"
	Lego       Client = "lego"
)

// Layout says where a certificate stands in its client's tree.
type Layout struct {
	Client Client
	Name   string // what the client calls the lineage
	// Dir is the root of the tree: certbot's configuration directory,
	// dehydrated's BASEDIR, acme.sh's home, lego's path.
	Dir string
}

// LayoutOf tells whose certificate path is. Links are followed: a link into
// certbot's live/ is as good as the path there, and a configuration directory may
// be a link itself. What this process may not read is taken for what its path
// says, as long as something that it can see confirms that.
func LayoutOf(path string) Layout { return layoutOf(forms(path)) }

func layoutOf(all []string) Layout {
	for _, recognize := range []func(string) (Layout, bool){certbotLive, certbotArchive, dehydrated, acmeSh, lego} {
		for _, form := range all {
			if l, ok := recognize(form); ok {
				return l
			}
		}
	}
	return Layout{}
}

// certbotLive recognizes DIR/live/NAME/fullchain.pem by DIR/renewal/NAME.conf, or
// by where the link leads when only parts of the tree can be seen.
func certbotLive(path string) (Layout, bool) {
	kind, pem := strings.CutSuffix(filepath.Base(path), ".pem")
	dir, name := filepath.Dir(filepath.Dir(path)), filepath.Base(filepath.Dir(path))
	if !pem || !slices.Contains(certbotKinds, kind) || filepath.Base(dir) != "live" {
		return Layout{}, false
	}
	l := Layout{Certbot, name, filepath.Dir(dir)}
	if isFile(l.conf()) {
		return l, true
	}
	target, err := os.Readlink(path)
	if err != nil || filepath.Base(filepath.Dir(target)) != name || filepath.Base(filepath.Dir(filepath.Dir(target))) != "archive" {
		return Layout{}, false
	}
	return l, numbered(filepath.Base(target), kind, "")
}

// certbotArchive recognizes DIR/archive/NAME/fullchain3.pem: where links end that
// are kept outside of live/.
func certbotArchive(path string) (Layout, bool) {
	dir, name := filepath.Dir(filepath.Dir(path)), filepath.Base(filepath.Dir(path))
	if filepath.Base(dir) != "archive" || !slices.ContainsFunc(certbotKinds, func(kind string) bool { return numbered(filepath.Base(path), kind, "") }) {
		return Layout{}, false
	}
	l := Layout{Certbot, name, filepath.Dir(dir)}
	return l, isFile(l.conf())
}

var certbotKinds = []string{"cert", "privkey", "chain", "fullchain"}

// conf is certbot's renewal configuration of the lineage.
func (l Layout) conf() string { return filepath.Join(l.Dir, "renewal", l.Name+".conf") }

// dehydrated recognizes BASEDIR/certs/NAME/fullchain.pem by its link to
// fullchain-1700000000.pem beside it.
func dehydrated(path string) (Layout, bool) {
	kind, pem := strings.CutSuffix(filepath.Base(path), ".pem")
	dir := filepath.Dir(filepath.Dir(path))
	if !pem || !slices.Contains(certbotKinds, kind) || filepath.Base(dir) != "certs" {
		return Layout{}, false
	}
	target, err := os.Readlink(path)
	if err != nil || !numbered(filepath.Base(target), kind, "-") {
		return Layout{}, false
	}
	return Layout{Dehydrated, filepath.Base(filepath.Dir(path)), filepath.Dir(dir)}, true
}

// acmeSh recognizes HOME/NAME/fullchain.cer and HOME/NAME_ecc/NAME.cer by NAME.conf
// beside them.
func acmeSh(path string) (Layout, bool) {
	if filepath.Ext(path) != ".cer" {
		return Layout{}, false
	}
	dir := filepath.Dir(path)
	name := strings.TrimSuffix(filepath.Base(dir), "_ecc")
	return Layout{AcmeSh, name, filepath.Dir(dir)}, isFile(filepath.Join(dir, name+".conf"))
}

// lego recognizes PATH/certificates/NAME.crt by NAME.json beside it.
func lego(path string) (Layout, bool) {
	name, crt := strings.CutSuffix(filepath.Base(path), ".crt")
	dir := filepath.Dir(path)
	if !crt || filepath.Base(dir) != "certificates" {
		return Layout{}, false
	}
	return Layout{Lego, name, filepath.Dir(dir)}, isFile(filepath.Join(dir, name+".json"))
}

// numbered reports whether file is KIND + sep + a number + .pem.
func numbered(file, kind, sep string) bool {
	number, ok := strings.CutPrefix(strings.TrimSuffix(file, ".pem"), kind+sep)
	if !ok || !strings.HasSuffix(file, ".pem") {
		return false
	}
	_, err := strconv.ParseUint(number, 10, 64)
	return err == nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

const (
	maxLinks      = 40   // Linux's own limit
	maxComponents = 4096 // names walked for one path, links included
)

// forms returns the paths under which a file is known, as its links are followed
// one by one: the given one first, made absolute, and the real one last, unless
// something on the way is missing or may not be read.
func forms(path string) []string {
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return nil
		}
		path = wd + "/" + path
	}
	all := []string{filepath.Clean(path)}
	dir, rest, links := "/", components(path), 0
	for steps := 0; len(rest) > 0 && steps < maxComponents; steps++ {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		full := filepath.Join(dir, name)
		info, err := os.Lstat(full)
		if err != nil {
			return all
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			dir = full
			continue
		}
		target, err := os.Readlink(full)
		if links++; err != nil || links > maxLinks {
			return all
		}
		if filepath.IsAbs(target) {
			dir = "/"
		}
		rest = append(components(target), rest...)
		if form := filepath.Join(append([]string{dir}, rest...)...); form != all[len(all)-1] {
			all = append(all, form)
		}
	}
	if len(rest) == 0 && dir != all[len(all)-1] {
		all = append(all, dir)
	}
	return all
}

// components splits a path; "." and doubled slashes mean nothing.
func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// show makes a path fit for a sentence: printable, on one line and bounded.
func show(s string) string {
	const most = 512
	if len(s) > most {
		s = s[:most/2] + "..." + s[len(s)-most/2:]
	}
	for _, r := range s {
		if !strconv.IsPrint(r) || r == '\uFFFD' {
			return strconv.Quote(s)
		}
	}
	return s
}
