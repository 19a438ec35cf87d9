package watchdog

import (
	"encoding/json"
	"unique"
)

// DER is one certificate as bytes. Equal ones are kept once: the certificates of
// a host share their issuers. The zero DER is empty.
type DER struct{ h unique.Handle[string] }

// NewDER keeps der.
func NewDER(der []byte) DER { return DER{unique.Make(string(der))} }

// Bytes returns a copy.
func (d DER) Bytes() []byte {
	if d == (DER{}) {
		return nil
	}
	return []byte(d.h.Value())
}

// MarshalJSON writes base64, as for a []byte.
func (d DER) MarshalJSON() ([]byte, error) { return json.Marshal(d.Bytes()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *DER) UnmarshalJSON(text []byte) error {
	var der []byte
	if err := json.Unmarshal(text, &der); err != nil {
		return err
	}
	*d = NewDER(der)
	return nil
}
