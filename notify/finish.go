package notify

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// MaxEvent is the most bytes an event has as JSON.
const MaxEvent = 48 << 10

// ContentType is the media type of an event.
const ContentType = "application/cloudevents+json"

// SchemaURN names the JSON Schema of the data of events of kind k.
func SchemaURN(k Kind) string {
	return "urn:renewatch:event:" + string(k) + ":v1"
}

// TypeOf is the CloudEvents type of kind k.
func TypeOf(k Kind) string { return "io.renewatch." + string(k) + ".v1" }

// Kind is the class and outcome in the event's type, "" when the type is not one
// of renewatch's.
func (e Event) Kind() Kind {
	rest, ok := strings.CutPrefix(e.Type, "io.renewatch.")
	if !ok {
		return ""
	}
	rest, ok = strings.CutSuffix(rest, ".v1")
	if k := Kind(rest); ok && k.valid() {
		return k
	}
	return ""
}

// EventID is the id of the event that a draft becomes on this host and instance.
func EventID(host, instance string, d Draft) string {
	transition := d.Transition
	if transition == "" {
		transition = string(d.Kind)
	}
	h := sha256.New()
	for _, field := range []string{host, instance, d.Certificate, transition, d.Leaf} {
		// The length in front makes the encoding unambiguous.
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(field))))
		h.Write([]byte(field))
	}
	h.Write(binary.BigEndian.AppendUint64(nil, d.Occurrence))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Finish makes the event of a draft: id, type and sequence are filled in, texts
// are made printable, and the whole is cut to MaxEvent, worst verdicts first. now
// is the time of a draft that has none.
func Finish(d Draft, host, instance string, sequence uint64, now time.Time) (Event, error) {
	if !d.Kind.valid() || !slices.Contains(Kinds(), d.Kind) {
		return Event{}, fmt.Errorf("notify: unknown kind of event %q", d.Kind)
	}
	if d.Certificate == "" {
		return Event{}, errors.New("notify: a draft without a certificate name")
	}
	if d.Time.IsZero() {
		d.Time = now
	}
	e := Event{
		SpecVersion:     "1.0",
		ID:              EventID(host, instance, d),
		Source:          "//" + host + "/renewatch",
		Type:            TypeOf(d.Kind),
		Subject:         text(d.Certificate, 2*maxWord),
		Time:            instant(d.Time),
		DataContentType: "application/json",
		DataSchema:      SchemaURN(d.Kind),
		Sequence:        formatSequence(sequence),
		Data:            tidy(d.Data),
	}
	e.Data.Host = host
	if e.Data.Severity == "" {
		e.Data.Severity = Info
	}
	if err := fit(&e); err != nil {
		return Event{}, err
	}
	return e, nil
}

func formatSequence(n uint64) string { return fmt.Sprintf("%020d", n) }

// Encode is the event as one line of JSON without the line end.
func Encode(e Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("notify: encode event: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads one event. Keys it does not know are ignored.
func Decode(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("notify: not an event: %w", err)
	}
	if e.SpecVersion != "1.0" || e.ID == "" || e.Type == "" {
		return Event{}, errors.New("notify: not an event: specversion, id or type is missing")
	}
	return e, nil
}

// Names and verdicts that stay when an event is too large.
const (
	maxNames     = 250
	fewNames     = 16
	fewVerdicts  = 8
	fewExcluded  = 16
	fewFaults    = 8
	fewDetail    = 256
	maxFaults    = 32
	maxChain     = 16
	maxVerdicts  = 256
	maxExclusion = 256

	maxAttempt      = 512 // of an attempt's texts
	maxAttemptNames = 32
	maxProblems     = 8
)

// fit cuts an event to MaxEvent: first verdicts, the mildest first, down to a few;
// then long lists and texts; then whatever verdicts are still too many.
func fit(e *Event) error {
	size := func() (int, error) {
		b, err := Encode(*e)
		return len(b), err
	}
	shrink := func(atLeast int) error {
		for len(e.Data.Verdicts) > atLeast {
			n, err := size()
			if err != nil || n <= MaxEvent {
				return err
			}
			all := len(e.Data.Verdicts)
			// A guess by proportion, at least one.
			keep := max(atLeast, min(all-1, all*MaxEvent/n))
			e.Data.VerdictsOmitted += all - keep
			e.Data.Verdicts = e.Data.Verdicts[:keep]
		}
		return nil
	}
	if err := shrink(fewVerdicts); err != nil {
		return err
	}
	n, err := size()
	if err != nil || n <= MaxEvent {
		return err
	}
	trim(&e.Data)
	if err := shrink(0); err != nil {
		return err
	}
	if n, err = size(); err != nil {
		return err
	}
	if n > MaxEvent {
		return fmt.Errorf("notify: event of %d bytes cannot be cut to %d", n, MaxEvent)
	}
	return nil
}

func trim(d *Data) {
	names := func(list []string, omitted *int) []string {
		if len(list) > fewNames {
			*omitted += len(list) - fewNames
			list = list[:fewNames]
		}
		return list
	}
	for _, c := range []*Certificate{d.Certificate, d.Previous} {
		if c != nil {
			c.Names = names(c.Names, &c.NamesOmitted)
		}
	}
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		v.Detail, v.Hint = text(v.Detail, fewDetail), text(v.Hint, fewDetail)
		v.Faults = v.Faults[:min(len(v.Faults), fewFaults)]
		if v.Served != nil {
			v.Served.Names = names(v.Served.Names, &v.Served.NamesOmitted)
			v.Served.Chain = v.Served.Chain[:min(len(v.Served.Chain), 1)]
		}
	}
	if n := len(d.Excluded); n > fewExcluded {
		d.ExcludedOmitted += n - fewExcluded
		d.Excluded = d.Excluded[:fewExcluded]
	}
	if d.Reload != nil {
		d.Reload.Output = lines(d.Reload.Output, fewDetail)
	}
}

// tidy is a deep copy of d with bounded, printable texts, verdicts worst first
// and no null where the contract has a list.
func tidy(d Data) Data {
	d.Certificate, d.Previous = tidyCertificate(d.Certificate), tidyCertificate(d.Previous)
	d.Cause = text(d.Cause, maxWord)
	d.Detail, d.Hint = text(d.Detail, maxDetail), text(d.Hint, maxHint)
	d.RenewalID = text(d.RenewalID, maxWord)

	d.Verdicts = slices.Clone(d.Verdicts)
	slices.SortStableFunc(d.Verdicts, func(a, b Verdict) int {
		return cmp.Compare(b.Severity.Rank(), a.Severity.Rank())
	})
	if n := len(d.Verdicts); n > maxVerdicts {
		d.VerdictsOmitted += n - maxVerdicts
		d.Verdicts = d.Verdicts[:maxVerdicts]
	}
	for i := range d.Verdicts {
		d.Verdicts[i] = tidyVerdict(d.Verdicts[i])
	}

	d.Excluded = slices.Clone(d.Excluded)
	if n := len(d.Excluded); n > maxExclusion {
		d.ExcludedOmitted += n - maxExclusion
		d.Excluded = d.Excluded[:maxExclusion]
	}
	for i := range d.Excluded {
		x := &d.Excluded[i]
		x.Endpoint, x.Address = text(x.Endpoint, maxPath), text(x.Address, maxWord)
		x.Code, x.Why = text(x.Code, maxWord), text(x.Why, maxWord)
	}
	if d.LagSeconds != nil {
		lag := *d.LagSeconds
		d.LagSeconds = &lag
		if math.IsNaN(lag) || math.IsInf(lag, 0) { // JSON has no such number
			d.LagSeconds = nil
		}
	}
	if d.Reload != nil {
		r := *d.Reload
		r.Server, r.How = text(r.Server, maxWord), text(r.How, maxWord)
		r.Output = lines(r.Output, maxOutput)
		d.Reload = &r
	}
	d.Attempt = tidyAttempt(d.Attempt)
	if d.Next != nil {
		n := *d.Next
		n.Action, n.At = text(n.Action, maxWord), instant(n.At)
		d.Next = &n
	}
	return d
}

func tidyAttempt(p *Attempt) *Attempt {
	if p == nil {
		return nil
	}
	a := *p
	a.Client, a.Log, a.Lineage, a.CA = text(a.Client, maxWord), text(a.Log, maxPath), text(a.Lineage, maxWord), text(a.CA, maxPath)
	a.Names = tidyList(a.Names, maxAttemptNames, &a.NamesOmitted)
	var ignored int
	a.Saved = tidyList(a.Saved, maxAttemptNames, &ignored)
	a.Outcome, a.Phase = text(a.Outcome, maxWord), text(a.Phase, maxWord)
	a.ProblemType, a.ProblemDetail = text(a.ProblemType, maxWord), text(a.ProblemDetail, maxAttempt)
	a.Started, a.Ended, a.RetryAfter = instant(a.Started), instant(a.Ended), instant(a.RetryAfter)
	a.Problems = slices.Clone(a.Problems[:min(len(a.Problems), maxProblems)])
	for i := range a.Problems {
		q := &a.Problems[i]
		q.Name, q.Type, q.Detail = text(q.Name, maxWord), text(q.Type, maxWord), text(q.Detail, fewDetail)
	}
	if a.Hook != nil {
		h := *a.Hook
		h.Kind = text(h.Kind, maxWord)
		a.Hook = &h
	}
	return &a
}

func tidyCertificate(p *Certificate) *Certificate {
	if p == nil {
		return nil
	}
	c := *p
	c.Name, c.SHA256, c.Serial = text(c.Name, maxWord), text(c.SHA256, maxWord), text(c.Serial, maxWord)
	c.Issuer, c.KeyType, c.Path = text(c.Issuer, maxWord), text(c.KeyType, maxWord), text(c.Path, maxPath)
	c.NotBefore, c.NotAfter = instant(c.NotBefore), instant(c.NotAfter)
	c.Names = tidyList(c.Names, maxNames, &c.NamesOmitted)
	return &c
}

func tidyVerdict(v Verdict) Verdict {
	v.Certificate, v.Endpoint = text(v.Certificate, maxWord), text(v.Endpoint, maxPath)
	v.Server, v.Address = text(v.Server, maxWord), text(v.Address, maxWord)
	v.Transport, v.KeyType, v.Code = text(v.Transport, maxWord), text(v.KeyType, maxWord), text(v.Code, maxWord)
	v.ExpectedSHA256 = text(v.ExpectedSHA256, maxWord)
	v.Detail, v.Hint = text(v.Detail, maxDetail), text(v.Hint, maxHint)
	var ignored int
	v.Faults = tidyList(v.Faults, maxFaults, &ignored)
	if v.Severity == "" {
		v.Severity = Info
	}
	if v.Served != nil {
		s := *v.Served
		s.SHA256, s.Serial, s.Issuer = text(s.SHA256, maxWord), text(s.Serial, maxWord), text(s.Issuer, maxWord)
		s.NotBefore, s.NotAfter = instant(s.NotBefore), instant(s.NotAfter)
		s.Names = tidyList(s.Names, maxNames, &s.NamesOmitted)
		s.Chain = tidyList(s.Chain, maxChain, &ignored)
		v.Served = &s
	}
	return v
}

// tidyList is never nil.
func tidyList(list []string, limit int, omitted *int) []string {
	if n := len(list); n > limit {
		*omitted += n - limit
		list = list[:limit]
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, text(s, maxWord))
	}
	return out
}
