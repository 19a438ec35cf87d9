package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/renewatch/renewatch/verify"
)

// whole checks what only shows when every file has been read.
func (d *decoder) whole() {
	d.names()
	d.references()
	d.listeners()
	d.deadline("defaults", d.cfg.Defaults.Verify)
	for i, c := range d.cfg.Certificates {
		d.deadline(fmt.Sprintf("certificates[%d]", i), c.Verify)
		d.endpointsOnce(i, c)
		for j := range c.Endpoints {
			key := fmt.Sprintf("certificates[%d].endpoints[%d]", i, j)
			c.Endpoints[j].Text = cmp.Or(d.texts[key], d.texts[key+".url"])
		}
	}
}

// at fails at the place that the value of a key came from.
func (d *decoder) at(key, sentence, hint string) {
	if len(d.errs) >= 10*maxErrors {
		d.faults++
		return
	}
	from := d.cfg.Origins[key]
	d.file = from.Name
	path := d.local(key, from)
	d.failAt(place{path, key}, from.Line, from.Column, strings.Replace(sentence, key, path, 1), hint)
}

// local turns a key counted over all files into a path within its own file.
func (d *decoder) local(key string, from Origin) string {
	rest, ok := strings.CutPrefix(key, "certificates[")
	if !ok {
		return key
	}
	number, tail, _ := strings.Cut(rest, "]")
	for i := range d.cfg.Certificates {
		if d.cfg.Origins[fmt.Sprintf("certificates[%d]", i)].Name == from.Name {
			var n int
			fmt.Sscan(number, &n)
			return fmt.Sprintf("certificates[%d]%s", n-i, tail)
		}
	}
	return key
}

func (d *decoder) names() {
	first := map[string]string{} // lower-case name -> key it was given at
	for i := range d.cfg.Certificates {
		c := &d.cfg.Certificates[i]
		key := fmt.Sprintf("certificates[%d]", i)
		at := key + ".name"
		if c.Cert == "" || c.Glob() || d.failed[at] {
			continue
		}
		derived := ""
		if c.Name == "" {
			at = key + ".cert"
			c.Name = nameOf(c.Cert)
			derived = ", made from the file's path,"
			if wrong, hint := checkName(c.Name); wrong != "" {
				if hint != "" {
					hint = "; " + hint
				}
				d.at(at, fmt.Sprintf("%s: the name %s%s %s", at, quote(c.Name), derived, wrong), "give the certificate a name of its own with name"+hint)
				continue
			}
		}
		lower := strings.ToLower(c.Name)
		if other, twice := first[lower]; twice {
			d.at(at, fmt.Sprintf("%s: the name %s%s is given twice, first at %s", at, quote(c.Name), derived, d.cfg.Origins[other]), "give one of the two another name; upper and lower case are the same")
			continue
		}
		first[lower] = at
	}
}

func (d *decoder) references() {
	known := slices.Sorted(maps.Keys(d.cfg.Servers))
	check := func(key, name string) {
		if _, ok := d.cfg.Servers[name]; ok || name == "" || name == None || d.cfg.Origins[key].Kind != FromFile {
			return
		}
		hint := "there are no servers yet: add servers: {" + name + ": {unit: " + name + ".service}}"
		if len(known) > 0 {
			hint = "known servers: " + strings.Join(known[:min(len(known), 20)], ", ") + "; or none"
			if near := Nearest(name, known); near != "" {
				hint = "did you mean " + near + "? " + hint
			}
		}
		d.at(key, key+" names the unknown server "+quote(name), hint)
	}
	check("defaults.server", d.cfg.Defaults.Server)
	for i, c := range d.cfg.Certificates {
		check(fmt.Sprintf("certificates[%d].server", i), c.Server)
		for j, e := range c.Endpoints {
			check(fmt.Sprintf("certificates[%d].endpoints[%d].server", i, j), e.Server)
		}
	}
}

func (d *decoder) listeners() {
	n, h := d.cfg.NATS, d.cfg.HTTP
	if n.UsesEmbedded() && h.Enabled && n.Embedded.Listen == h.Listen && !strings.HasSuffix(h.Listen, ":0") {
		key := "http.listen"
		if _, ok := d.cfg.Origins[key]; !ok {
			key = "nats.embedded.listen"
		}
		d.at(key, key+": nats.embedded.listen and http.listen are the same address "+h.Listen, "give one of them another port")
	}
}

// deadline refuses a deadline before the last retry, where either is set.
func (d *decoder) deadline(key string, v Verify) {
	at := key + ".verify.deadline"
	retries := key + ".verify.retries"
	if d.failed[at] || d.failed[retries] || len(v.Retries) == 0 {
		return
	}
	last := slices.Max(v.Retries)
	if v.Deadline >= last {
		return
	}
	if _, ok := d.cfg.Origins[at]; !ok {
		if at = retries; d.cfg.Origins[at].Kind != FromFile {
			return
		}
	}
	d.at(at, fmt.Sprintf("%s: the deadline %s is before the last retry at %s", at, formatDuration(v.Deadline), formatDuration(last)),
		"make the deadline longer or the retries earlier; both count from the end of the grace")
}

func (d *decoder) endpointsOnce(i int, c Certificate) {
	first := map[verify.Endpoint]int{}
	for j, e := range c.Endpoints {
		if e.URL.IsZero() {
			continue
		}
		if k, twice := first[e.URL]; twice {
			key := fmt.Sprintf("certificates[%d].endpoints[%d]", i, j)
			other := d.cfg.Origins[fmt.Sprintf("certificates[%d].endpoints[%d]", i, k)]
			d.at(key, fmt.Sprintf("%s is given twice, first at %d:%d", key, other.Line, other.Column), "remove one of the two")
			continue
		}
		first[e.URL] = j
	}
}
