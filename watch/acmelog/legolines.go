package acmelog

import (
	"bytes"
	"strings"
	"time"
)

// legoWhat is what a line of lego says, in the words of neither version.
type legoWhat int

const (
	legoNothing   legoWhat = iota
	legoAccount            // an account is made or asked for
	legoCheck              // whether the certificate is due
	legoSkip               // it is not
	legoTry                // it is: a renewal begins
	legoSleep              // it waits for the time that the CA suggests, or a random one
	legoObtain             // an order is made
	legoAuth               // an authorization's URL
	legoChallenge          // a challenge is solved
	legoValid              // the CA is content
	legoFinalize           // all authorizations are there
	legoIssued             // the CA gave the certificate
	legoFile               // a file will be written
	legoRetry              // an answer of the CA, after which lego may sleep and try again
	legoHook               // a hook failed
	legoFatal              // the run ends with this error
	legoTrouble            // an error of which it is not known whether the run ends with it
)

// legoLine is a line of lego.
type legoLine struct {
	what  legoWhat
	names []string // of the certificate; of the one name for legoChallenge and legoValid
	name  string   // the certificate's own, where lego says that
	text  string   // an error
	value string   // a URL, a path, the kind of a hook
	wait  time.Duration
}

// legoV4Quiet are the beginnings of lines without a level that say nothing about the
// run; lego 4's last words have none either.
var legoV4Quiet = []string{
	"Please review the TOS", "The flag '", "Failed to read the file", "Trying to revoke", "Certificate was ", "http: ",
}

// legoV4Fatal are the beginnings of its last words, besides errors of ACME.
var legoV4Fatal = []string{
	"error: one or more domains had a problem:", "acme: Error -> One or more domains had a problem:", "Could not ", "Error while ", "Error: ", "Unable to ", "Account ",
	"Server requires External Account Binding", "You have to pass ", "You did not accept the TOS", "Please specify ",
	"No challenge selected", "Unsupported KeyType", "acme: ", "get directory at ", `Post "`, `Get "`, `Head "`, "failed to ",
	"Requires arguments", "Invalid HTTP challenge options", "Invalid PFX format", "no domains to obtain", "invalid order", "order ",
}

// legoV4 reads a line of lego 4 without its time.
func legoV4(text string) legoLine {
	if rest, ok := strings.CutPrefix(text, "[WARN] "); ok {
		if rest, ok := strings.CutPrefix(rest, "retry: "); ok {
			return legoLine{what: legoRetry, text: rest}
		}
		return legoLine{}
	}
	info, ok := strings.CutPrefix(text, "[INFO] ")
	if ok {
		return legoV4Info(info)
	}
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, ": no renewal.") {
		return legoV4Info(text)
	}
	switch {
	case strings.HasPrefix(text, "No key found for account "):
		return legoLine{what: legoAccount}
	case strings.HasPrefix(text, "Saved key to "):
		return legoLine{what: legoAccount, value: text[len("Saved key to "):]}
	case legoV4Hook(text):
		return legoLine{what: legoHook, text: text}
	}
	for _, p := range legoV4Quiet {
		if strings.HasPrefix(text, p) {
			return legoLine{}
		}
	}
	for _, p := range legoV4Fatal {
		if strings.HasPrefix(text, p) {
			return legoLine{what: legoFatal, text: text}
		}
	}
	if _, status, _ := legoStatus(text); status > 0 {
		return legoLine{what: legoFatal, text: text}
	}
	return legoLine{what: legoTrouble, text: text}
}

// legoV4Hook reports whether a text is the error of a hook, in the words of any
// version of lego 4.
func legoV4Hook(text string) bool {
	return text == "hook timed out" || strings.HasPrefix(text, "wait command: ") || strings.HasPrefix(text, "start command: ") ||
		strings.HasPrefix(text, "create pipe: ") || strings.HasPrefix(text, "exit status ") || strings.HasPrefix(text, "signal: ") ||
		strings.HasPrefix(text, "fork/exec ") || strings.HasPrefix(text, "exec: ")
}

// legoV4Info reads a line of lego 4 that stands behind [INFO].
func legoV4Info(text string) legoLine {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		list, rest, ok := strings.Cut(rest, "] ")
		if !ok {
			return legoLine{}
		}
		return legoV4Names(splitNames(list), rest)
	}
	switch {
	case strings.HasPrefix(text, "lego has been configured to prefer certificate chains"): // but got another
		return legoLine{what: legoIssued}
	case strings.HasPrefix(text, "acme: Registering account"), strings.HasPrefix(text, "acme: Querying account"):
		return legoLine{what: legoAccount}
	case strings.HasPrefix(text, "Deactivating auth: "):
		return legoLine{what: legoAuth, value: text[len("Deactivating auth: "):]}
	case strings.HasPrefix(text, "retry due to: "):
		return legoLine{what: legoRetry, text: text[len("retry due to: "):]}
	case strings.HasPrefix(text, "renewal: random delay of "):
		d, _ := time.ParseDuration(text[len("renewal: random delay of "):])
		return legoLine{what: legoSleep, wait: d}
	}
	return legoLine{}
}

// legoV4Names reads what follows "[a.example, b.example] ".
func legoV4Names(names []string, text string) legoLine {
	l := legoLine{names: names}
	if len(names) == 0 {
		return l
	}
	switch {
	case strings.HasSuffix(text, ": no renewal.") && strings.HasPrefix(text, "The certificate expires "):
		l.what, l.name = legoSkip, names[0]
	case strings.HasPrefix(text, "acme: renewalInfo endpoint indicates that renewal is "):
		l.what, l.name, l.value = legoCheck, names[0], "ari"
	case strings.HasPrefix(text, "Sleeping "):
		span, _, _ := strings.Cut(text[len("Sleeping "):], " ")
		l.wait, _ = time.ParseDuration(span)
		l.what, l.name = legoSleep, names[0]
	case strings.HasPrefix(text, "acme: Trying renewal with "):
		l.what, l.name = legoTry, names[0]
	case strings.HasPrefix(text, "acme: Obtaining "):
		l.what = legoObtain
	case strings.HasPrefix(text, "AuthURL: "):
		l.what, l.value = legoAuth, text[len("AuthURL: "):]
	case text == "The server validated our request", strings.HasPrefix(text, "acme: authorization already valid"):
		l.what = legoValid
	case strings.HasPrefix(text, "acme: use "), strings.HasPrefix(text, "acme: Trying to solve "), strings.HasPrefix(text, "acme: Preparing to solve "),
		strings.HasPrefix(text, "acme: Checking DNS record propagation"), strings.HasPrefix(text, "acme: Waiting for DNS record propagation"):
		l.what = legoChallenge
	case strings.HasPrefix(text, "acme: Validations succeeded"):
		l.what = legoFinalize
	case text == "Server responded with a certificate.", strings.HasPrefix(text, "Server responded with a certificate for the preferred certificate chains "):
		l.what = legoIssued
	}
	return l
}

// legoV5Messages are the messages of lego 5 that matter; where the rest of one
// varies, its beginning with prefix.
var legoV5Messages = []struct {
	text   string
	prefix bool
	what   legoWhat
	value  string
}{
	{"Registering the account", true, legoAccount, ""},
	{"Private key saved.", false, legoAccount, ""},
	{"No key found for the account.", true, legoAccount, ""},
	{"Renewing certificate", false, legoCheck, ""},
	{"RenewalInfo endpoint indicates that renewal is ", true, legoCheck, "ari"},
	{"Skip renewal: ", true, legoSkip, ""},
	{"Trying renewal.", false, legoTry, ""},
	{"Sleeping until renewal time", false, legoSleep, ""},
	{"renewal: random delay.", false, legoSleep, ""},
	{"Obtaining bundled SAN certificate given a CSR.", false, legoObtain, ""},
	{"Obtaining SAN certificate given a CSR.", false, legoObtain, ""},
	{"Obtaining bundled SAN certificate.", false, legoObtain, ""},
	{"Obtaining SAN certificate.", false, legoObtain, ""},
	{"Authorization is already valid; skipping the challenge.", false, legoValid, ""},
	{"Authorization", false, legoAuth, ""},
	{"Deactivating authorization.", false, legoAuth, ""},
	{"Use solver.", false, legoChallenge, ""},
	{"http01: Trying to solve HTTP-01.", false, legoChallenge, ""},
	{"tlsalpn01: Trying to solve TLS-ALPN-01.", false, legoChallenge, ""},
	{"dns01: preparing to solve the challenge.", false, legoChallenge, ""},
	{"dns01: trying to solve the challenge.", false, legoChallenge, ""},
	{"dns01: waiting for record propagation", true, legoChallenge, ""},
	{"dnspersist01: trying to solve the challenge.", false, legoChallenge, ""},
	{"dnspersist01: waiting for record propagation", true, legoChallenge, ""},
	{"The server validated our request.", false, legoValid, ""},
	{"Validations succeeded; requesting certificates.", false, legoFinalize, ""},
	{"Waiting for certificates.", false, legoFinalize, ""},
	{"Server responded with a certificate.", false, legoIssued, ""},
	{"lego has been configured to prefer certificate chains with issuer", true, legoIssued, ""}, // but got another
	{"Writing file.", false, legoFile, ""},
	{"retry: ", true, legoRetry, ""},
	{"Deploy hook.", false, legoHook, "deploy"},
	{"Post hook.", false, legoHook, "post"},
	{"Pre hook.", false, legoHook, "pre"},
	{"Error", false, legoFatal, ""},
}

// legoV5 reads a message of lego 5. Where fields is filled, they are the message's;
// else they stand behind it, and are read from there.
func legoV5(message []byte, level byte, fields *fieldList, behind bool) legoLine {
	for i := range legoV5Messages {
		m := &legoV5Messages[i]
		if len(message) < len(m.text) || string(message[:len(m.text)]) != m.text {
			continue
		}
		rest := message[len(m.text):]
		if !m.prefix {
			if behind && len(rest) > 0 && rest[0] != ' ' || !behind && len(rest) > 0 {
				continue
			}
		}
		if behind {
			fields.reset()
			if m.what != legoRetry { // whose rest is the CA's text
				fields.logfmt(rest)
			}
		}
		l := legoLine{what: m.what, value: m.value, name: fields.text("cert-name"), names: fields.names("domains")}
		switch m.what {
		case legoRetry:
			if level != 'W' {
				return legoLine{}
			}
			l.text = string(rest)
		case legoHook, legoFatal:
			if level != 'E' {
				return legoLine{}
			}
			l.text = fields.text("error")
		case legoAuth:
			l.value = fields.text("url")
		case legoFile, legoAccount:
			l.value = fields.text("filepath")
		case legoChallenge, legoValid:
			l.names = []string{fields.text("domain")}
		case legoSleep:
			l.wait, _ = fields.seconds("sleep", 30*24*time.Hour)
			if m, ok := fields.find("sleep"); ok && l.wait == 0 {
				l.wait, _ = time.ParseDuration(m.text())
			} else if ok && m.json { // slog's JSON writes nanoseconds
				if d, err := time.ParseDuration(m.text() + "ns"); err == nil {
					l.wait = d
				}
			}
		}
		return l
	}
	if level == 'E' {
		if behind {
			return legoLine{what: legoTrouble, text: string(message)}
		}
		text := string(message)
		if e := fields.text("error"); e != "" {
			text += " " + e
		}
		return legoLine{what: legoTrouble, text: text}
	}
	return legoLine{}
}

// legoClock reads the time in front of a line of lego 4, "2006/01/02 15:04:05 ".
func legoClock(b []byte, zone *time.Location) (at time.Time, rest []byte, ok bool) {
	if len(b) < 20 || b[4] != '/' || b[7] != '/' || b[10] != ' ' || b[13] != ':' || b[16] != ':' || b[19] != ' ' {
		return time.Time{}, nil, false
	}
	at, err := time.ParseInLocation("2006/01/02 15:04:05", string(b[:19]), zone)
	return at.UTC(), b[20:], err == nil
}

// legoRecord takes a line of lego 5 apart: its time, the first letter of its level,
// and its message, with fields filled, or still standing behind it in the default
// format.
func legoRecord(b []byte, fields *fieldList) (at time.Time, level byte, message []byte, behind, ok bool) {
	fields.reset()
	switch {
	case bytes.HasPrefix(b, []byte(`{"time":"`)):
		fields.json(b)
	case bytes.HasPrefix(b, []byte("time=2")):
		fields.logfmt(b)
	default:
		return legoColored(b)
	}
	if !fields.has("level", "INFO") && !fields.has("level", "WARN") && !fields.has("level", "ERROR") && !fields.has("level", "DEBUG") {
		return at, 0, nil, false, false
	}
	m, ok := fields.find("level")
	at = stamp(fields.text("time"), time.UTC)
	return at, m.value[0], []byte(fields.text("msg")), false, ok && !at.IsZero()
}

// legoColored takes apart "2006-01-02T15:04:05.000000000Z INFO  message key=value".
func legoColored(b []byte) (at time.Time, level byte, message []byte, behind, ok bool) {
	if len(b) < 30 || b[4] != '-' || b[10] != 'T' || b[19] != '.' {
		return at, 0, nil, false, false
	}
	i := bytes.IndexByte(b, ' ')
	if i < 0 || i > 35 || len(b) < i+7 {
		return at, 0, nil, false, false
	}
	switch string(b[i+1 : i+7]) {
	case "INFO  ", "WARN  ", "ERROR ", "DEBUG ":
	default:
		return at, 0, nil, false, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(b[:i]))
	return at.UTC(), b[i+1], b[i+7:], true, err == nil
}
