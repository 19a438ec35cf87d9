package ari

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// The kinds of an Error. None of them says anything about when to renew.
var (
	// ErrUnsupported: the CA, or this certificate, has no renewal information.
	ErrUnsupported = errors.New("no renewal information is to be had")
	// ErrUnknown: the CA does not know the certificate, or not any more.
	ErrUnknown = errors.New("the CA does not know this certificate")
	// ErrUnavailable: the CA cannot be reached, or has no time for the question.
	ErrUnavailable = errors.New("the CA does not answer")
	// ErrNonsense: what came is not an answer, or one that cannot be meant.
	ErrNonsense = errors.New("the answer makes no sense")
	// ErrAddress: the directory's address is not one that is asked.
	ErrAddress = errors.New("the address of the ACME directory cannot be used")
	// ErrExpired: the certificate has expired, so the CA must not be asked.
	ErrExpired = errors.New("the certificate has expired, its CA is not asked any more")
)

// Error says why there is no answer. errors.Is finds its Kind.
type Error struct {
	Kind   error  // one of the kinds above
	Host   string // who was asked; empty when nobody was
	Detail string // what happened: printable, on one line and bounded
	Hint   string // what a person can do; empty when there is nothing
	Status int    // of HTTP; 0 without a response
	// Temporary: it may well be over in minutes (a time-out, a 5xx).
	Temporary bool
	// RetryAfter is when to ask again. It is never zero.
	RetryAfter time.Time

	cause error
}

func (e *Error) Error() string {
	s := "renewal information: " + e.Kind.Error()
	if e.Host != "" {
		s = fmt.Sprintf("renewal information from %s: %v", e.Host, e.Kind)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns the kind, and what caused it.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.cause}
}

const mostDetail = 300 // runes of what others said in a sentence of ours

// clean makes text of others fit for a sentence.
func clean(s string) string {
	if len(s) > 8*mostDetail {
		s = s[:8*mostDetail]
	}
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	runes := []rune(strings.Join(strings.Fields(s), " "))
	if len(runes) > mostDetail {
		runes = append(runes[:mostDetail-3], []rune("...")...)
	}
	return string(runes)
}
