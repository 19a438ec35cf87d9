package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of one file. The parser's time grows with the square of the keys of one
// map, and its stack with the nesting.
const (
	maxFile   = 1 << 20 // bytes
	maxTokens = 200_000
	maxKeys   = 4096 // lines that start a key at one level
	maxDepth  = 64
)

// kind is what a node is.
type kind string

const (
	isNull   kind = "nothing"
	isBool   kind = "a boolean"
	isNumber kind = "a number"
	isString kind = "a string"
	isList   kind = "a list"
	isMap    kind = "a map"
)

// node is one value of a document.
type node struct {
	kind         kind
	line, column int
	text         string // of a scalar
	quoted       bool   // of a string
	items        []*node
	pairs        []pair
}

// pair is one entry of a map.
type pair struct {
	key          string
	keyKind      kind
	line, column int
	value        *node
}

// get returns the value of a key that is there and not null.
func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key == key && p.value.kind != isNull {
			return p.value
		}
	}
	return nil
}

// parse reads one file's text. A nil node without errors is an empty document.
func parse(file string, data []byte) (n *node, errs Errors) {
	fail := func(line, column int, sentence, hint string) {
		errs = append(errs, &Error{File: file, Line: line, Column: column, Sentence: sentence, Hint: hint})
	}
	if len(data) > maxFile {
		fail(0, 0, "the file is larger than 1 MiB", "spread servers and certificates over conf.d/*.yaml")
		return nil, errs
	}
	if at, what, hint := firstBadByte(data); what != "" {
		line, column := locate(data, at)
		fail(line, column, what, hint)
		return nil, errs
	}
	defer func() {
		if r := recover(); r != nil {
			n, errs = nil, nil
			fail(0, 0, "the YAML parser cannot make sense of this file", "check indentation, brackets and quotes")
		}
	}()
	// A tag that ends the text without a line break is swallowed by the scanner.
	tokens := lexer.Tokenize(string(data) + "\n")
	if errs = checkTokens(file, tokens); len(errs) > 0 {
		return nil, errs
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, column, message := 0, 0, ""
		var syntax interface {
			GetToken() *token.Token
			GetMessage() string
		}
		if errors.As(err, &syntax) {
			message = syntax.GetMessage()
			if tk := syntax.GetToken(); tk != nil && tk.Position != nil {
				line, column = tk.Position.Line, tk.Position.Column
			}
		}
		sentence, hint := explainSyntax(message)
		fail(line, column, sentence, hint)
		return nil, errs
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		return nil, nil
	}
	c := converter{file: file}
	n = c.convert(f.Docs[0].Body, 0)
	return n, c.errs
}

func firstBadByte(data []byte) (at int, what, hint string) {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return 0, "the file starts with a byte order mark", "save it as UTF-8 without BOM"
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return 0, "the file is UTF-16, not UTF-8", "save it as UTF-8 without BOM"
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			return i, "the file is not valid UTF-8 here", "save it as UTF-8"
		case r == 0:
			return i, "there is a NUL byte in the file", "is this a text file? remove the byte"
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f, r >= 0x80 && r < 0xa0,
			r == 0x2028, r == 0x2029, r == 0xfeff:
			return i, fmt.Sprintf("there is an invisible character (U+%04X) in the file", r), "remove it"
		}
		i += size
	}
	return 0, "", ""
}

func locate(data []byte, at int) (line, column int) {
	before := data[:at]
	line = 1 + bytes.Count(before, []byte("\n"))
	return line, 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
}

// checkTokens refuses what this configuration does without (it would only make
// files that other tools read differently) and what would cost too much to parse.
func checkTokens(file string, tokens token.Tokens) (errs Errors) {
	fail := func(tk *token.Token, sentence, hint string) {
		if len(errs) < maxErrors {
			errs = append(errs, &Error{File: file, Line: tk.Position.Line, Column: tk.Position.Column, Sentence: sentence, Hint: hint})
		}
	}
	if len(tokens) > maxTokens {
		fail(tokens[maxTokens], "the file has too many values to be read", "spread servers and certificates over conf.d/*.yaml")
		return errs
	}
	var (
		depth    = 0             // of brackets
		columns  []int           // of the block levels that are open
		keys     = map[int]int{} // keys seen in each open level
		lastLine = 0             // of the previous token
		previous token.Type      // its type
		content  = false         // anything but comments seen
		ended    *token.Token    // the document's end
	)
	for _, tk := range tokens {
		if tk.Position == nil {
			continue
		}
		line, column := tk.Position.Line, tk.Position.Column
		first := line != lastLine
		before := previous
		lastLine, previous = line, tk.Type
		switch tk.Type {
		case token.CommentType:
			continue
		case token.InvalidType:
			sentence, hint := explainSyntax(tk.Error)
			fail(tk, sentence, hint)
			return errs
		case token.DocumentHeaderType:
			if content || ended != nil {
				fail(tk, "a second document starts here, and only one is read", "remove the ---, or use a file in conf.d")
				return errs
			}
			content = true
			continue
		case token.DocumentEndType:
			ended = tk
			continue
		case token.DirectiveType:
			fail(tk, "a YAML directive is not read here", "remove the line")
			return errs
		case token.AnchorType:
			fail(tk, "YAML anchors (&) are not read here", "write the value out, use defaults, or quote a text that starts with &")
			continue
		case token.AliasType:
			fail(tk, "YAML aliases (*) are not read here", `write the value out, or quote a text that starts with *`)
			continue
		case token.TagType:
			fail(tk, "YAML tags (!) are not read here", "remove the tag, or quote a text that starts with !")
			continue
		case token.MergeKeyType:
			fail(tk, "YAML merge keys (<<) are not read here", "write the keys out, or use defaults")
			continue
		case token.MappingKeyType:
			fail(tk, "a complex key (?) is not read here", "write key: value")
			continue
		case token.CollectEntryType:
			if before == token.MappingStartType || before == token.SequenceStartType || before == token.CollectEntryType {
				fail(tk, "a comma separates nothing", "remove it")
				return errs
			}
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth = max(0, depth-1)
		}
		if ended != nil {
			fail(tk, "there is text after the end of the document (...)", "remove the ..., or use a file in conf.d")
			return errs
		}
		content = true
		if depth == 0 && (first || tk.Type == token.SequenceEntryType) {
			for len(columns) > 0 && columns[len(columns)-1] > column {
				delete(keys, columns[len(columns)-1])
				columns = columns[:len(columns)-1]
			}
			if len(columns) == 0 || columns[len(columns)-1] < column {
				columns = append(columns, column)
			}
			if tk.Type != token.SequenceEntryType {
				keys[column]++
				if keys[column] > maxKeys {
					fail(tk, fmt.Sprintf("more than %d keys stand at one level", maxKeys), "spread them over conf.d/*.yaml")
					return errs
				}
			}
		}
		if depth+len(columns) > maxDepth {
			fail(tk, fmt.Sprintf("the file is nested more than %d levels deep", maxDepth), "check the brackets and the indentation")
			return errs
		}
	}
	return errs
}

// explainSyntax turns the parser's message into a sentence. The message itself is
// not printed: it may quote the text.
func explainSyntax(message string) (sentence, hint string) {
	for _, s := range []struct{ part, sentence, hint string }{
		{"character '\t'", "a tab stands where only spaces may", "indent with spaces"},
		{"tab character", "a tab stands where only spaces may", "indent with spaces"},
		{"single-quoted text", "a text in single quotes is not closed", "add the closing '"},
		{"double-quoted text", "a text in double quotes is not closed", `add the closing "`},
		{"end character of", "a quoted text is not closed", "add the closing quote"},
		{"escape", `there is an unknown escape after \ in a double-quoted text`, `use single quotes, or write \\ for a backslash`},
		{"surrogate", `there is an unknown escape after \ in a double-quoted text`, `use single quotes, or write \\ for a backslash`},
		{"end token '}'", "a { is not closed", "add the closing }"},
		{"end token ']'", "a [ is not closed", "add the closing ]"},
		{"',' or '}'", "inside { } a comma or the closing } is missing here", "separate entries with commas and close every {"},
		{"',' or ']'", "inside [ ] a comma or the closing ] is missing here", "separate entries with commas and close every ["},
		{"corresponding to ']'", "a ] closes nothing", "remove it, or quote the text"},
		{"corresponding to '}'", "a } closes nothing", "remove it, or quote the text"},
		{"found ','", "a comma separates nothing", "remove it"},
		{"reserved character", "a text starts with @ or `, which YAML reserves", "quote the text"},
		{"directive", "a text starts with %, which YAML reserves", "quote the text"},
		{"mapping value is not allowed", "a second key or a colon stands where one value belongs", "check the indentation; quote a text that holds a colon followed by a space"},
		{"map key-value is pre-defined", "there is text after a value that is already complete", "quote the whole text, or check the indentation"},
		{"non-map value", "this line is no key: value pair", "write key: value, and check the indentation"},
		{"unexpected key name", "this line is no key: value pair", "write key: value, and check the indentation"},
		{"invalid key", "a list or a map cannot be a key", "write key: value"},
		{"block sequence entries", "a list cannot start on the line of its key", "start it on the next line, or write [a, b]"},
		{"value is not allowed", "the indentation does not fit the lines above", "indent entries of one map or list alike"},
		{"multi-line header", "the line after | or > is not indented as it says", "write the text on one line"},
		{"header option", "what follows | or > is not understood", "write the text on one line, or quote it"},
		{"document separator", "there is text on the line of ---", "start the text on the next line"},
		{"end content", "there is text on the line of ...", "remove it"},
	} {
		if strings.Contains(message, s.part) {
			return s.sentence, s.hint
		}
	}
	return "this is not valid YAML", "check indentation, brackets, colons and quotes around here"
}

// converter turns the parser's tree into nodes.
type converter struct {
	file string
	errs Errors
}

func (c *converter) convert(n ast.Node, depth int) *node {
	out := &node{kind: isNull}
	if n == nil {
		return out
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		out.line, out.column = tk.Position.Line, tk.Position.Column
	}
	if depth > maxDepth {
		c.fail(out, fmt.Sprintf("the file is nested more than %d levels deep", maxDepth), "check the brackets and the indentation")
		return out
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return out
	case *ast.MappingNode:
		out.kind = isMap
		for _, v := range n.Values {
			c.addPair(out, v, depth)
		}
		if len(out.pairs) > 0 && !n.IsFlowStyle {
			// The parser's token of a block map is its first colon.
			out.line, out.column = out.pairs[0].line, out.pairs[0].column
		}
	case *ast.MappingValueNode:
		out.kind = isMap
		c.addPair(out, n, depth)
		if len(out.pairs) > 0 {
			out.line, out.column = out.pairs[0].line, out.pairs[0].column
		}
	case *ast.SequenceNode:
		out.kind = isList
		for _, v := range n.Values {
			out.items = append(out.items, c.convert(v, depth+1))
		}
	case *ast.StringNode:
		out.text = n.Value
		out.quoted = n.Token.Type == token.DoubleQuoteType || n.Token.Type == token.SingleQuoteType
		out.kind = isString
		if !out.quoted {
			out.kind = resolve(n.Value)
		}
	case *ast.LiteralNode:
		out.kind, out.quoted = isString, true
		if n.Value != nil {
			out.text = n.Value.Value
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = isNumber, n.GetToken().Value
	case *ast.BoolNode:
		out.kind, out.text = isBool, n.GetToken().Value
	default:
		c.fail(out, "this kind of YAML value is not read here", "write plain values, lists and maps")
	}
	return out
}

func (c *converter) addPair(out *node, v *ast.MappingValueNode, depth int) {
	key := c.convert(v.Key, depth+1)
	p := pair{key: key.text, keyKind: key.kind, line: key.line, column: key.column, value: c.convert(v.Value, depth+1)}
	if key.kind == isNull {
		p.key = "null"
	}
	out.pairs = append(out.pairs, p)
}

func (c *converter) fail(n *node, sentence, hint string) {
	c.errs = append(c.errs, &Error{File: c.file, Line: n.line, Column: n.column, Sentence: sentence, Hint: hint})
}

// ShowJSON is Show as JSON, without the comments.
func ShowJSON(cfg *Config) ([]byte, error) { return yaml.YAMLToJSON(Show(cfg)) }
