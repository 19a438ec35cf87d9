package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the expected messages of testdata/bad anew")

// TestBad holds every file of testdata/bad to the messages beside it. The first
// line of each file says which behaviour it shows.
func TestBad(t *testing.T) {
	schema := compile(t)
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if first, _, _ := bytes.Cut(data, []byte("\n")); !bytes.Contains(first, []byte("# ")) {
				t.Error("the first line says nothing")
			}
			var b strings.Builder
			_, err = Load(path, LoadOptions{Getenv: env()})
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, e := range err.(Errors) {
				if e.File != path {
					t.Errorf("%v is not about this file", e)
				}
				fmt.Fprintf(&b, "%d:%d: %s\n", e.Line, e.Column, e.Sentence)
				if e.Hint != "" {
					fmt.Fprintf(&b, "    hint: %s\n", e.Hint)
				}
			}
			fmt.Fprintf(&b, "schema: %s\n", judge(schema, data))
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func compile(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judge says what the schema makes of a YAML text.
func judge(s *jsonschema.Schema, data []byte) string {
	asJSON, err := yaml.YAMLToJSON(data)
	if err != nil {
		return "not asked, no YAML"
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return "not asked, no JSON"
	}
	if s.Validate(v) != nil {
		return "rejects"
	}
	return "accepts, it cannot tell"
}

func TestSchemaAccepts(t *testing.T) {
	s := compile(t)
	texts := map[string]string{"full": full, "empty": "{}", "defaults shown": string(Show(load(t, ""))), "full shown": string(Show(load(t, full)))}
	examples, err := filepath.Glob("../../examples/*/renewatch.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range examples {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(data)
	}
	for name, text := range texts {
		if got := judge(s, []byte(text)); got != "accepts, it cannot tell" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// The examples load, without a warning.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../../examples/*/renewatch.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range examples {
		cfg, err := Load(path, LoadOptions{Getenv: env()})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, w := range Warnings(cfg) {
			t.Errorf("%v", w)
		}
		if len(cfg.Certificates) == 0 {
			t.Errorf("%s watches nothing", path)
		}
	}
}
