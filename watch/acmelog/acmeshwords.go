package acmelog

import "bytes"

// acmeOp is what a line of acme.sh means.
type acmeOp string

const (
	acmeCronBegins acmeOp = "cron begins"
	acmeCronEnds   acmeOp = "cron ends"
	acmeRenews     acmeOp = "renews"
	acmeDirectory  acmeOp = "directory"
	acmeUsesCA     acmeOp = "uses CA"
	acmeNames      acmeOp = "names"
	acmeName       acmeOp = "name"
	acmeReaches    acmeOp = "reaches"
	acmeSucceeds   acmeOp = "succeeds"
	acmeKept       acmeOp = "kept"
	acmeInstalls   acmeOp = "installs"
	acmeRunsHook   acmeOp = "runs hook"
	acmeReloaded   acmeOp = "reloaded"
	acmeHookFails  acmeOp = "hook fails"
	acmeSkips      acmeOp = "skips"
	acmeSkipped    acmeOp = "skipped"
	acmeFails      acmeOp = "fails"
	acmeLastWord   acmeOp = "last word"
	acmeNotRenewed acmeOp = "not renewed"
	acmeCause      acmeOp = "cause"
	acmeTooLate    acmeOp = "too late"
	acmeStatus     acmeOp = "status"
	acmeHeader     acmeOp = "header"
	acmeRefusal    acmeOp = "refusal"
	acmeHears      acmeOp = "hears"
)

// Where a CA's answer stands.
const (
	answerHere = 1 + iota // behind the words
	answerNext            // in the next line
)

// acmeWord is how a line begins, and what it means.
type acmeWord struct {
	text    string
	needle  []byte // the same where it is looked for inside of a line
	op      acmeOp
	phase   Phase
	kind    string // of a hook, a problem, a file
	begins  bool   // an attempt begins with it where none goes on
	answer  int
	soft    bool // the attempt may go on
	request bool // a request failed
	detail  bool // the CA's own words follow
	status  bool // a status stands before the name
}

// nameWords follow the name that is refused.
var nameWords = []acmeWord{
	{needle: []byte(": Invalid status. Verification error details:"), detail: true},
	{needle: []byte(": Invalid status, Verification error:")},
	{needle: []byte(": Invalid code. Verification error:"), request: true},
	{needle: []byte(": Unknown status: ")},
	{needle: []byte(": Challenge error:")},
	{needle: []byte(": Cannot get challenge:"), request: true},
	{needle: []byte(": Cannot write token to file:")},
	{needle: []byte(": Timeout")},
	{needle: []byte(":Verify error detail:"), detail: true}, // up to 3.0.7
	{needle: []byte(":Verify error:"), detail: true},
	{needle: []byte(":Challenge error:")},
	{needle: []byte(":Can not get challenge:"), request: true},
	{needle: []byte(":Can not write token to file")},
	{needle: []byte(":Timeout")},
}

// oldNameWords stand before the name, up to 3.0.7.
var oldNameWords = []acmeWord{
	{text: "Invalid status, "}, {text: "Invalid code, "}, {text: "Unknown status: ", status: true},
}

// acmeWords are the lines that matter, as acme.sh 2.8 to 3.1 prints them. The first
// that fits counts.
func acmeWords() []acmeWord {
	fails := func(p Phase, texts ...string) (w []acmeWord) {
		for _, t := range texts {
			w = append(w, acmeWord{text: t, op: acmeFails, phase: p})
		}
		return w
	}
	hook := func(op acmeOp, kind string, texts ...string) (w []acmeWord) {
		for _, t := range texts {
			w = append(w, acmeWord{text: t, op: op, kind: kind})
		}
		return w
	}
	reaches := func(p Phase, texts ...string) (w []acmeWord) {
		for _, t := range texts {
			w = append(w, acmeWord{text: t, op: acmeReaches, phase: p})
		}
		return w
	}
	words := []acmeWord{
		{text: "===Starting cron===", op: acmeCronBegins},
		{text: "===End cron===", op: acmeCronEnds},
		{text: "Renewing: '", op: acmeRenews},
		{text: "Renew: ", op: acmeRenews},
		{text: "Using ACME_DIRECTORY: ", op: acmeDirectory},
		{text: "Using stage ACME_DIRECTORY: ", op: acmeDirectory},
		{text: "Renewing using Le_API=", op: acmeDirectory},
		{text: "Renew to Le_API=", op: acmeDirectory},
		{text: "Switching back to ", op: acmeDirectory},
		{text: "Using CA: ", op: acmeUsesCA},
		{text: "Single domain=", op: acmeName, phase: PhaseStart},
		{text: "Multi domain=", op: acmeNames},
		{text: "Getting webroot for domain=", op: acmeName, phase: PhaseOrder, begins: true},
		{text: "Verifying: ", op: acmeName, phase: PhaseChallenge, begins: true},
		{text: "Verifying:", op: acmeName, phase: PhaseChallenge, begins: true},
		{text: "Pending", op: acmeHears}, {text: "Processing", op: acmeHears}, {text: "Success", op: acmeHears},
		{text: "Sleep", op: acmeHears}, {text: "Order status is ", op: acmeHears}, {text: "Polling order status:", op: acmeHears},
		{text: "Cert success.", op: acmeSucceeds},
		{text: "Your cert is in", op: acmeKept, kind: "cert"},
		{text: "The intermediate CA cert is in", op: acmeKept},
		{text: "And the full-chain cert is in", op: acmeKept},
		{text: "And the full chain certs is there", op: acmeKept},
		{text: "Installing cert to:", op: acmeInstalls},
		{text: "Installing CA to:", op: acmeInstalls},
		{text: "Installing key to:", op: acmeInstalls},
		{text: "Installing full chain to:", op: acmeInstalls},
		{text: "Reload success", op: acmeReloaded},
		{text: "Skipping. Next renewal time is:", op: acmeSkips},
		{text: "Skip, Next renewal time is:", op: acmeSkips},
		{text: "Skipping invalid cert for:", op: acmeSkips},
		{text: "Skip invalid cert for:", op: acmeSkips},
		{text: "Skipped ", op: acmeSkipped},
		{text: "Error renewing ", op: acmeNotRenewed},
		{text: "Error renew ", op: acmeNotRenewed},
		{text: "Please check log file for more details:", op: acmeLastWord},
		{text: "Please add '--debug' or '--log' to", op: acmeLastWord},

		{text: "Error creating new order.", op: acmeFails, phase: PhaseOrder, answer: answerHere, request: true},
		{text: "Create new order error.", op: acmeFails, phase: PhaseOrder, answer: answerHere, request: true},
		{text: "Create new order with invalid status.", op: acmeFails, phase: PhaseOrder, answer: answerNext},
		{text: "Error getting authz.", op: acmeFails, phase: PhaseOrder, answer: answerNext, request: true},
		{text: "get to authz error.", op: acmeFails, phase: PhaseOrder, answer: answerNext, request: true},
		{text: "get authz objec with invalid status", op: acmeFails, phase: PhaseChallenge, answer: answerNext},
		{text: "Account registration error:", op: acmeFails, phase: PhaseDirectory, answer: answerHere, request: true},
		{text: "Error registering account:", op: acmeFails, phase: PhaseDirectory, answer: answerHere, request: true},
		{text: "Register account Error:", op: acmeFails, phase: PhaseDirectory, answer: answerHere, request: true},

		{text: "Cannot init API for: ", op: acmeHears}, {text: "Can not init api for: ", op: acmeHears},
		{text: "Cannot init API for ", op: acmeFails, phase: PhaseDirectory, soft: true, request: true},
		{text: "Can not init api", op: acmeFails, phase: PhaseDirectory, soft: true, request: true},
		{text: "Signing failed, could not download cert:", op: acmeHears},
		{text: "Sign failed, can not download cert:", op: acmeFails, phase: PhaseFinalize, answer: answerNext, soft: true, request: true},

		{text: "It seems the CA server is currently overloaded", op: acmeCause, kind: HTTP5xx},
		{text: "It seems the CA server is busy now", op: acmeCause, kind: problemP + "badNonce"},
		{text: "The replay nonce is not valid", op: acmeCause, kind: problemP + "badNonce"},
		{text: "The replay Nonce is not valid", op: acmeCause, kind: problemP + "badNonce"},
		{text: "Please refer to https://curl.haxx.se/libcurl/c/libcurl-errors.html", op: acmeCause, kind: Network},
		{text: "Please refer to https://www.gnu.org/software/wget/manual/html_node/Exit-Status.html", op: acmeCause, kind: Network},
		{text: "Cannot connect to ", op: acmeCause, kind: Network}, {text: "Can not connect to ", op: acmeCause, kind: Network},
		{text: "Cannot make POST request to ", op: acmeCause, kind: Network}, {text: "Can not post to ", op: acmeCause, kind: Network},
		{text: "The retryafter=", op: acmeTooLate},
		{text: "code='", op: acmeStatus},
		{text: "responseHeaders='HTTP", op: acmeHeader},
		{text: "error='\"error\":{", op: acmeRefusal},
	}
	for _, t := range []string{"Signing failed", "Sign failed", "Signing error", "Sign error", "A signing error occurred"} {
		words = append(words, acmeWord{text: t, op: acmeFails, phase: PhaseFinalize, answer: answerNext, request: true})
	}
	words = append(words, reaches(PhaseDirectory, "Registering account", "Create account key ok", "Account key creation OK")...)
	words = append(words, reaches(PhaseOrder, "Getting domain auth token for each domain")...)
	words = append(words, reaches(PhaseChallenge, "Adding TXT value:", "Adding txt value:", "Let's check each DNS record now.")...)
	words = append(words, reaches(PhaseFinalize, "Verification finished, beginning signing.", "Verify finished, start to sign.", "Let's finalize the order.",
		"Lets finalize the order.", "Le_OrderFinalize='", "Downloading cert.", "Le_LinkCert='")...)
	words = append(words, fails(PhaseOrder, "_authorizations_seg not found.", "Cannot get domain token", "Cannot get domain URI", "Error, can not get domain")...)
	words = append(words, fails(PhaseChallenge, "Error adding TXT record to domain:", "Error add txt for domain:", "Error checking DNS.", "check dns error.",
		"Error starting TLS server.", "Start tls server error.", "Please add the TXT records to the domains")...)
	words = append(words, fails(PhaseDirectory, "Cannot get EAB credentials", "Can not get EAB credentials", "Cannot resolve _eab_", "Can not resolve _eab_",
		"Cannot find account id url.", "Can not find account id url.", "It seems that the account key", "Please update your account with an email address first.")...)
	words = append(words, fails(PhaseClient, "Error creating account key.", "Create account key error.", "Error creating domain key.", "Create domain key error.",
		"Error creating CSR.", "Create CSR error.", "Cannot parse _valid_", "Can not parse _valid_", "Cannot pre-generate domain key", "Can not pre generate domain key",
		"Please install socat", "tcp port ", "Error setting up Apache.", "set up apache error.", "_on_before_issue.")...)
	words = append(words, hook(acmeRunsHook, "reload", "Running reload cmd:", "Run reload cmd:")...)
	words = append(words, hook(acmeRunsHook, "pre", "Running pre hook:", "Runing pre hook:", "Run pre hook:")...)
	words = append(words, hook(acmeRunsHook, "post", "Running post hook:", "Run post hook:")...)
	words = append(words, hook(acmeRunsHook, "renew", "Running renew hook:", "Run renew hook:")...)
	words = append(words, hook(acmeHookFails, "reload", "Reload error for")...)
	words = append(words, hook(acmeHookFails, "pre", "Error occurred when running pre hook.", "Error when run pre hook.")...)
	words = append(words, hook(acmeHookFails, "post", "Error encountered while running post hook.", "Error when run post hook.")...)
	words = append(words, hook(acmeHookFails, "renew", "Error encountered while running renew hook.", "Error when run renew hook.", "Error calling hook.", "Call hook error.")...)
	return append(words, hook(acmeHookFails, "deploy", "Error deploying for domain:", "Error deploy for domain:", "Error encountered while deploying.", "Deploy error.", "The deploy hook ")...)
}

// acmeSigns are lines that nobody else writes, and how sure that is.
var acmeSigns = []struct {
	text  string
	worth int
}{
	{"===Starting cron===", 3}, {"===End cron===", 3}, {"Renewing using Le_API=", 3}, {"Renew to Le_API=", 3}, {"Le_OrderFinalize='", 3}, {"Le_LinkCert='", 3},
	{"Renewing: '", 2}, {"Renew: '", 2}, {"Using CA: http", 2}, {"Cert success.", 2}, {"Your cert is in", 2}, {"Error renewing ", 2}, {"Error renew ", 2},
	{"Reload error for", 2}, {"Running reload cmd:", 2}, {"Run reload cmd:", 2}, {"Please check log file for more details:", 2}, {"Please add '--debug' or '--log' to", 3},
	{"Skipping. Next renewal time is:", 3}, {"Skip, Next renewal time is:", 3}, {"Please refer to https://curl.haxx.se/libcurl", 3},
	{"Error creating new order. Le_OrderFinalize", 3}, {"Create new order error. Le_OrderFinalize", 3}, {"Using config home:", 2}, {"Let's find the script directory.", 2},
	{"Cannot init API for", 2}, {"Can not init api", 2}, {"Getting webroot for domain=", 2}, {"Multi domain='", 2}, {"Single domain='", 2}, {"Verify finished, start to sign.", 2},
	{"Verification finished, beginning signing.", 2}, {"Invalid status, ", 1}, {"Verifying: ", 1}, {"Skipped ", 1}, {"Installing full chain to:", 1},
}

func signAcmeSh(text []byte) int {
	dated := 0
	if _, rest, ok := cutStamp(text); ok {
		text, dated = rest, 1
	}
	for _, s := range acmeSigns {
		if len(text) >= len(s.text) && string(text[:len(s.text)]) == s.text {
			return s.worth + dated
		}
	}
	if bytes.Contains(text[:min(len(text), 256)], []byte(": Invalid status")) {
		return 2 + dated
	}
	return 0
}
