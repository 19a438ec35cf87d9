// Package e2e holds the end-to-end tests: the real renewatch binary beside a
// real certbot, nginx, Apache, HAProxy, Postfix, Dovecot and nats-server, which
// the test starts and ends as processes of its own, and a real ACME CA (pebble)
// inside the test. Everything is on loopback and on free ports, with every file
// in the test's temporary directory. The systemd unit runs in a Debian that is
// booted for it, the image in a container.
//
// The tests know nothing of the program's insides. They write files, read the
// journal, subscribe to NATS and look at what is served, as a user would. Every
// event that comes along is held against the contract: its envelope, its JSON
// Schema, its subject and headers, its place in the sequence.
//
// Tests that need addresses, name servers or mounts of their own run again in a
// process with network and mount namespaces of its own, which needs root.
//
// A program that is not installed makes its tests skip, with a sentence that
// names the Debian package. RENEWATCH_E2E=1 turns that into a failure;
// RENEWATCH_E2E=0 skips everything here. Under the race detector the binary is
// built with it too.
package e2e
