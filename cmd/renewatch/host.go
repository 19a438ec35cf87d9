package main

import (
	"context"
	"net"
	"os"
	"strings"
	"time"
)

// hostName returns the name events carry: the configured one, else the FQDN,
// else the host name.
func hostName(configured string) (string, error) {
	name := configured
	if name == "" {
		short, err := os.Hostname()
		if err != nil {
			return "", err
		}
		name = fqdn(short)
	}
	if bare, _, _ := strings.Cut(name, "."); name == "" || bare == "localhost" {
		return "", failed(exitConfig, "set host: in the configuration to a name that is this host's alone", "the name of this host is %q, which tells nobody where an event comes from", name)
	}
	return name, nil
}

// fqdn completes a host name as hostname -f does; without an answer within two
// seconds it stays as it is.
func fqdn(short string) string {
	if strings.Contains(short, ".") {
		return strings.ToLower(strings.TrimSuffix(short, "."))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if full, err := net.DefaultResolver.LookupCNAME(ctx, short); err == nil {
		full = strings.ToLower(strings.TrimSuffix(full, "."))
		if strings.HasPrefix(full, strings.ToLower(short)+".") {
			return full
		}
	}
	return strings.ToLower(short)
}
