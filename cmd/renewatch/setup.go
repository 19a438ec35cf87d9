package main

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// keeperSetup turns a configuration into what the keeper takes. Roots are read
// afresh, so that a reload of the configuration also sees new ones.
func keeperSetup(cfg *config.Config, repair bool) (watchdog.Setup, error) {
	s := watchdog.Setup{Servers: map[string]reload.Server{}, Windows: map[string]watchdog.Window{}}
	for name, c := range cfg.Servers {
		if w := windows(c); len(w) > 0 {
			s.Windows[name] = w
		}
		server := reload.Server{Name: name, Way: way(c.Way), Test: c.Test}
		if c.Then != nil {
			then := way(*c.Then)
			server.Then = &then
		}
		s.Servers[name] = server
	}
	s.Certificates = make([]watchdog.Certificate, 0, len(cfg.Certificates))
	roots := map[string]watchdog.Roots{}
	for _, c := range cfg.Certificates {
		v := c.Verify
		cert := watchdog.Certificate{
			Source: watch.Source{Name: c.Name, Cert: c.Cert, Key: c.Key},
			Policy: watchdog.Policy{Repair: repair, Grace: v.Grace, Deadline: v.Deadline, Retries: v.Retries, Recheck: v.Recheck,
				Every: v.Every, Samples: v.Samples, Spread: v.Spread, Expected: expected(c.ExpectedRenewal)},
			Server: c.Server, Timeout: v.Timeout, Logs: clientLogs(c),
		}
		if _, known := roots[v.CA]; !known {
			r, err := readRoots(v.CA)
			if err != nil {
				return s, failed(exitConfig, "verify.ca names a PEM file with CA certificates", "%s: %v", c.At, err)
			}
			roots[v.CA] = r
		}
		cert.Roots, cert.CA = roots[v.CA], v.CA
		if c.Endpoints != nil {
			cert.Endpoints = make([]watchdog.Endpoint, 0, len(c.Endpoints))
		}
		for _, e := range c.Endpoints {
			cert.Endpoints = append(cert.Endpoints, watchdog.Endpoint{URL: e.URL, Text: e.Text, Server: e.Server, File: e.File, AnyValid: e.AnyValid, Required: e.Required})
		}
		s.Certificates = append(s.Certificates, cert)
	}
	return s, nil
}

// readRoots reads the system's roots, and those of a PEM bundle besides.
func readRoots(ca string) (watchdog.Roots, error) {
	pool, err := verify.LoadRoots(ca)
	if errors.Is(err, verify.ErrNoRoots) {
		pool, err = x509.NewCertPool(), nil
	}
	if err != nil {
		return watchdog.Roots{}, err
	}
	r := watchdog.Roots{Pool: pool}
	if verify.NoRoots(pool) {
		r.Impaired = "there are no trusted root certificates on this host, so no chain can be judged"
	}
	return r, nil
}

// lean returns a configuration without what only the keeper needs, which has its
// own: a host may have ten thousand certificates.
func lean(cfg *config.Config) *config.Config {
	c := *cfg
	c.Certificates, c.Origins = nil, nil
	return &c
}

func way(w config.Way) reload.Way {
	return reload.Way{Unit: w.Unit, Command: w.Command, Signal: w.Signal, PIDFile: w.PIDFile}
}

// needsRestart names what differs between two configurations and is read at the
// start only.
func needsRestart(old, now *config.Config) []string {
	var out []string
	a, b := old.NATS, now.NATS
	for _, x := range []struct {
		key  string
		same bool
	}{
		{"state_dir", old.StateDir == now.StateDir},
		{"host", old.Host == now.Host},
		{"log.format", old.Log.Format == now.Log.Format},
		{"http", old.HTTP == now.HTTP},
		{"nats", fmt.Sprint(a) == fmt.Sprint(b) || external(a) && external(b)},
	} {
		if !x.same {
			out = append(out, x.key)
		}
	}
	return out
}
