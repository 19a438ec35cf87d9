package notify

import (
	"bytes"
	"os"
	"testing"
)

func TestStreamFileIsTheStreamThatEnsureStreamMakes(t *testing.T) {
	const path = "../examples/nats/stream.json"
	want, err := StreamJSON(DefaultStream, DefaultPrefix, 0)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(have, want) {
		t.Errorf("%s is out of step (%v): run go test ./notify -run TestStreamFile -update", path, err)
	}
}
