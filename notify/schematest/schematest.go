// Package schematest holds events against their JSON Schemas. It is for tests.
package schematest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/renewatch/renewatch/notify"
)

const envelopeURN = "urn:renewatch:event:v1"

// Validate tells what is wrong with an event as it stands in the journal or on
// the wire: its envelope, its data by the schema that its dataschema names, that
// type, dataschema and kind agree, that no key is there which the schemas do not
// know, and that it is within its size.
func Validate(event []byte) error {
	if len(event) > notify.MaxEvent {
		return fmt.Errorf("the event has %d bytes, more than %d", len(event), notify.MaxEvent)
	}
	if err := ValidateOpen(event); err != nil {
		return err
	}
	e, err := notify.Decode(event)
	if err != nil {
		return err
	}
	return validate(event, e.Kind(), strictSchemas)
}

// ValidateOpen is Validate as a reader must do it: unknown keys are allowed.
func ValidateOpen(event []byte) error {
	e, err := notify.Decode(event)
	if err != nil {
		return err
	}
	kind := e.Kind()
	if _, ok := notify.Schema(kind); !ok {
		return fmt.Errorf("type %q is not of a kind that has a schema", e.Type)
	}
	if want := notify.SchemaURN(kind); e.DataSchema != want {
		return fmt.Errorf("dataschema is %q, the type wants %q", e.DataSchema, want)
	}
	if want := "//" + e.Data.Host + "/renewatch"; e.Source != want {
		return fmt.Errorf("source is %q, the host wants %q", e.Source, want)
	}
	return validate(event, kind, openSchemas)
}

func validate(event []byte, kind notify.Kind, schemas func() (map[string]*jsonschema.Schema, error)) error {
	all, err := schemas()
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(event))
	if err != nil {
		return err
	}
	if err := all[envelopeURN].Validate(value); err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	data := value.(map[string]any)["data"]
	if err := all[notify.SchemaURN(kind)].Validate(data); err != nil {
		return fmt.Errorf("data of %s: %w", kind, err)
	}
	return nil
}

var (
	openSchemas   = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) { return compile(false) })
	strictSchemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) { return compile(true) })
)

func compile(strict bool) (map[string]*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	texts := map[string][]byte{envelopeURN: notify.EnvelopeSchema()}
	for _, k := range notify.Kinds() {
		text, ok := notify.Schema(k)
		if !ok {
			return nil, fmt.Errorf("no schema for %s", k)
		}
		texts[notify.SchemaURN(k)] = text
	}
	for urn, text := range texts {
		var schema map[string]any
		if err := json.Unmarshal(text, &schema); err != nil {
			return nil, fmt.Errorf("%s: %w", urn, err)
		}
		if schema["$id"] != urn {
			return nil, fmt.Errorf("%s: $id is %v", urn, schema["$id"])
		}
		if strict {
			closeObjects(schema)
		}
		value, err := json.Marshal(schema)
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
		if err != nil {
			return nil, err
		}
		if err := c.AddResource(urn, doc); err != nil {
			return nil, err
		}
	}
	compiled := map[string]*jsonschema.Schema{}
	for urn := range texts {
		schema, err := c.Compile(urn)
		if err != nil {
			return nil, err
		}
		compiled[urn] = schema
	}
	return compiled, nil
}

// closeObjects forbids unknown keys in every object whose keys are listed.
func closeObjects(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, ok := s["properties"].(map[string]any); ok && s["type"] == "object" {
			s["additionalProperties"] = false
		}
		for _, v := range s {
			closeObjects(v)
		}
	case []any:
		for _, v := range s {
			closeObjects(v)
		}
	}
}
