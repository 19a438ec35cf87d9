package main

import (
	"crypto/x509"
	"encoding/json"
	"os"

	"github.com/renewatch/renewatch/internal/durable"
)

func readJSONFile(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func writeJSONFile(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// watchedLeaf is what a configured certificate holds.
type watchedLeaf struct {
	name string
	leaf *x509.Certificate
}
