// Package e2e holds the end-to-end tests: the real renewatch binary beside a
// real certbot, a real ACME server (pebble), nginx, Apache and nats-server, all
// of them started by the test as processes of its own, on loopback and on free
// ports, with every file in the test's temporary directory.
//
// The tests know nothing of the program's insides. They write files, read the
// journal, subscribe to NATS and look at what is served, as a user would.
//
// A program that is not installed makes its tests skip, with a sentence that
// names the Debian package. RENEWATCH_E2E=1 turns that into a failure;
// RENEWATCH_E2E=0 skips everything here.
package e2e
