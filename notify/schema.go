package notify

import "embed"

//go:embed schema/*.json
var schemas embed.FS

// Kinds is every kind of event this version of renewatch says.
func Kinds() []Kind {
	return []Kind{
		AgentStarted, AgentStopped, AgentDegraded, AgentRecovered,
		RenewalAttempted, RenewalFailed, RenewalDetected, RenewalOverdue,
		FileBroken, FileRecovered, FileReverted, FileRemoved,
		DeployVerified, DeployFailed, DeployRecovered, DeployUnverified, DeploySuperseded, DeployLost,
		ReloadDone, ReloadFailed, ReloadHeld,
		ExpiryWarning, ExpiryError, ExpiryCritical,
		AlertWarning, AlertError, AlertCritical, AlertCleared,
	}
}

// Schema is the JSON Schema (draft 2020-12) of the data of events of kind k. Its
// $id is the event's dataschema.
func Schema(k Kind) ([]byte, bool) {
	b, err := schemas.ReadFile("schema/" + string(k) + ".json")
	return b, err == nil
}

// EnvelopeSchema is the JSON Schema (draft 2020-12) of what is around the data:
// the CloudEvents attributes every event has.
func EnvelopeSchema() []byte {
	b, err := schemas.ReadFile("schema/envelope.json")
	if err != nil {
		panic(err) // embedded at build time
	}
	return b
}
