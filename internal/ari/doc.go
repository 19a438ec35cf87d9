// Package ari asks a CA when it wants a certificate replaced: ACME Renewal
// Information, RFC 9773. Its questions are plain GET requests that need no account.
//
// A Client asks and remembers nothing of an answer; a Seen, which its owner keeps
// on disk, judges the answers that one leaf got over its lifetime. The sign of a
// revocation is a window that was moved into the past. A window that passed
// because nobody renewed says no more than that nobody renewed.
package ari
