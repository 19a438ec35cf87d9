package config

import (
	"fmt"
	"maps"
	"net"
	"slices"
)

// Warnings returns what is legal in cfg and probably not meant, in the order of
// the keys.
func Warnings(cfg *Config) []*Warning {
	out := slices.Clone(cfg.notes)
	warn := func(key, sentence, hint string) {
		from := cfg.Origins[key]
		if from.Name == "" {
			from.Name = cfg.Files[0]
		}
		out = append(out, &Warning{File: from.Name, Line: from.Line, Column: from.Column, Path: key, Sentence: sentence, Hint: hint})
	}
	if n := cfg.NATS; n.Enabled && len(n.URLs) == 0 {
		if !n.Embedded.Enabled {
			warn("nats.embedded.enabled", "there is no NATS server to tell: events stay in the journal", "set nats.url, or say so with nats.enabled: false")
		} else if !loopback(n.Embedded.Listen) {
			warn("nats.embedded.listen", "the embedded NATS server listens on more than this host, and its clients need no credentials", "listen on 127.0.0.1, or use a NATS server with nats.url")
		}
	}
	if cfg.Journal.MaxSize < 1<<20 {
		warn("journal.max_size", "the journal has room for few events only", "give it 1MiB at least")
	}
	if len(cfg.Certificates) == 0 {
		warn("certificates", "no certificate is watched", "add certificates: with a cert: each")
	}
	used := map[string]bool{cfg.Defaults.Server: true}
	for i, c := range cfg.Certificates {
		key := fmt.Sprintf("certificates[%d]", i)
		used[c.Server] = true
		if c.Glob() && len(c.Endpoints) > 0 {
			warn(key+".endpoints", "every match of the glob is expected at the same endpoints", "leave endpoints out, or name each certificate by itself")
		}
		for j, e := range c.Endpoints {
			used[e.Server] = true
			if e.URL.Wildcard() {
				warn(fmt.Sprintf("%s.endpoints[%d]", key, j), "a wildcard cannot be dialled, so this endpoint is never verified", "name a host that the wildcard covers")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Servers)) {
		if !used[name] {
			warn("servers."+printableKey(name), "no certificate names the server "+name+": it is never reloaded", "name it in defaults, a certificate or an endpoint")
		}
	}
	return out
}

func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
