package e2e

import "github.com/renewatch/renewatch/notify/schematest"

// checkSchema validates an event against its JSON Schemas.
func checkSchema(raw []byte) error { return schematest.Validate(raw) }
