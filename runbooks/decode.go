package runbooks

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder walks the syntax tree beside the Go types. The library's own strict decoding ends at the first error and
// forgets where the values stood; here all errors come at once, and Validate can point at lines.
type decoder struct {
	file string
	at   map[string]position // key such as links[0].from to where it was written
	errs Errors
}

type position struct{ line, column int }

func (d *decoder) fail(key string, p position, format string, args ...any) {
	d.errs = append(d.errs, Error{File: d.file, Line: max(p.line, 1), Column: max(p.column, 1), Key: key, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) document(data []byte, into *Runbook) {
	file, err := parseYAML(data)
	if err != nil {
		p, text := position{1, 1}, err.Error()
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			text = syntax.GetMessage()
			if tk := syntax.GetToken(); tk != nil && tk.Position != nil {
				p = position{tk.Position.Line, tk.Position.Column}
			}
		}
		d.fail("", p, "is not YAML: %s", text)
		return
	}
	docs := slices.DeleteFunc(file.Docs, func(doc *ast.DocumentNode) bool { return doc == nil || doc.Body == nil || isComment(doc.Body) })
	switch len(docs) {
	case 0:
		d.fail("", position{1, 1}, "is empty: a runbook starts with apiVersion: %s", APIVersion)
	case 1:
		d.value("", docs[0].Body, place(docs[0].Body), reflect.ValueOf(into).Elem(), nil)
	default:
		d.fail("", place(docs[1].Body), "holds a second document: write one runbook per file")
	}
}

// parseYAML turns a panic of the parser into an error: a file that somebody typed must not end a worker.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the text cannot be read as YAML at all")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

func isComment(n ast.Node) bool { _, ok := n.(*ast.CommentGroupNode); return ok }

func place(n ast.Node) position {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return position{1, 1}
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		return place(m.Values[0].Key) // the token of a mapping in block style is its first colon
	}
	p := n.GetToken().Position
	return position{p.Line, p.Column}
}

// value puts the node into v. at is where the reader looks for it: its key, or the scalar itself.
func (d *decoder) value(key string, n ast.Node, at position, v reflect.Value, enum []string) {
	d.at[key] = at
	switch n := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.fail(key, at, "uses a YAML anchor, alias or tag: write the value out, so that it can be read where it stands")
		return
	case *ast.NullNode, nil:
		d.fail(key, at, "has no value: write one, or remove the key")
		return
	case *ast.MappingKeyNode, *ast.DirectiveNode:
		d.fail(key, at, "uses YAML that a runbook does not need: write a plain mapping")
		return
	case *ast.MappingValueNode:
		d.mapping(key, []*ast.MappingValueNode{n}, at, v)
		return
	case *ast.MappingNode:
		d.mapping(key, n.Values, at, v)
		return
	case *ast.SequenceNode:
		d.sequence(key, n, at, v)
		return
	}
	d.scalar(key, n, at, v, enum)
}

func (d *decoder) mapping(key string, values []*ast.MappingValueNode, at position, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.mapping(key, values, at, v.Elem())
	case reflect.Struct:
		d.structure(key, values, at, v)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.pairs(key, values, func(name, child string, p position, n ast.Node) {
			item := reflect.New(v.Type().Elem()).Elem()
			d.value(child, n, p, item, nil)
			v.SetMapIndex(reflect.ValueOf(name), item)
		})
	default:
		d.fail(key, at, "is a mapping, must be %s", wanted(v))
	}
}

func (d *decoder) structure(key string, values []*ast.MappingValueNode, at position, v reflect.Value) {
	fields := map[string]reflect.StructField{}
	var names []string
	for f := range v.Type().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields[name] = f
		names = append(names, name)
	}
	seen := map[string]bool{}
	d.pairs(key, values, func(name, child string, p position, n ast.Node) {
		f, ok := fields[name]
		if !ok {
			d.fail(child, p, "%s", unknownKey(name, names))
			seen[nearest(name, names)] = true // the slip is said once, not as a missing key too
			return
		}
		seen[name] = true
		d.value(child, n, p, v.FieldByIndex(f.Index), enumOf(f))
	})
	for _, name := range names {
		if _, need := tagged(fields[name], "required"); need && !seen[name] {
			d.fail(join(key, name), at, "is missing: add %s", example(fields[name], name))
		}
	}
}

// pairs calls fn for each key that is text and stands there for the first time.
func (d *decoder) pairs(key string, values []*ast.MappingValueNode, fn func(name, child string, p position, n ast.Node)) {
	first := map[string]int{}
	for _, pair := range values {
		p := place(pair.Key)
		if pair.Key.IsMergeKey() {
			d.fail(key, p, "uses a YAML merge key (<<): write the values out, so that they can be read where they stand")
			continue
		}
		text, ok := pair.Key.(*ast.StringNode)
		if !ok || text.Value == "" {
			d.fail(key, p, "has a key that is not text: write it in quotes")
			continue
		}
		child := join(key, text.Value)
		if line, twice := first[text.Value]; twice {
			d.fail(child, p, "stands twice, first in line %d: remove one", line)
			continue
		}
		first[text.Value] = p.line
		fn(text.Value, child, p, pair.Value)
	}
}

func (d *decoder) sequence(key string, n *ast.SequenceNode, at position, v reflect.Value) {
	if v.Kind() != reflect.Slice {
		d.fail(key, at, "is a list, must be %s", wanted(v))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values)))
	for i, item := range n.Values {
		d.value(index(key, i), item, place(item), v.Index(i), nil)
	}
}

// scalar never repeats the value in its errors unless it is checked against an enum: what was put where a secret's
// path belongs may be the secret.
func (d *decoder) scalar(key string, n ast.Node, at position, v reflect.Value, enum []string) {
	text, isText := "", false
	switch s := n.(type) {
	case *ast.StringNode:
		text, isText = s.Value, true
	case *ast.LiteralNode:
		text, isText = s.Value.Value, true
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && isText {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			d.fail(key, at, "%v", err)
		}
		return
	}
	_, isDuration := v.Interface().(Duration)
	switch {
	case v.Kind() == reflect.String && isText:
		if len(enum) > 0 && !slices.Contains(enum, text) {
			d.fail(key, at, "%q is unknown: use %s%s", text, oneOf(enum), didYouMean(text, enum))
		}
		v.SetString(text)
	case v.Kind() == reflect.Bool && n.Type() == ast.BoolType:
		v.SetBool(n.(*ast.BoolNode).Value)
	case v.CanInt() && !isDuration && n.Type() == ast.IntegerType:
		d.integer(key, n.(*ast.IntegerNode), at, v)
	default:
		d.fail(key, at, "is %s, must be %s", kindOf(n), wanted(v))
	}
}

func (d *decoder) integer(key string, n *ast.IntegerNode, at position, v reflect.Value) {
	switch i := n.Value.(type) {
	case int64:
		if !v.OverflowInt(i) {
			v.SetInt(i)
			return
		}
	case uint64:
		if i <= 1<<63-1 && !v.OverflowInt(int64(i)) {
			v.SetInt(int64(i))
			return
		}
	}
	d.fail(key, at, "is too large a number")
}

func kindOf(n ast.Node) string {
	switch n.Type() {
	case ast.IntegerType:
		return "a number"
	case ast.FloatType, ast.InfinityType, ast.NanType:
		return "a number with a fraction"
	case ast.BoolType:
		return "true or false"
	case ast.StringType, ast.LiteralType:
		return "text"
	}
	return "something else"
}

func wanted(v reflect.Value) string {
	if _, ok := v.Interface().(Duration); ok {
		return "a duration with a unit, such as 30s, 5m or 1h30m"
	}
	switch v.Kind() {
	case reflect.String:
		return "text (put it in quotes)"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list, such as [a, b]"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "a mapping" + keysOf(v.Type())
	}
	return "a whole number"
}

func keysOf(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return ""
	}
	var names []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		names = append(names, name)
	}
	return " with " + strings.Join(names, ", ")
}

// tagged finds a part of the jsonschema tag, and what follows its equals sign.
func tagged(f reflect.StructField, part string) (values []string, ok bool) {
	for p := range strings.SplitSeq(f.Tag.Get("jsonschema"), ",") {
		if name, value, _ := strings.Cut(p, "="); name == part {
			values, ok = append(values, value), true
		}
	}
	return values, ok
}

func enumOf(f reflect.StructField) []string { v, _ := tagged(f, "enum"); return v }

func example(f reflect.StructField, name string) string {
	if e := enumOf(f); len(e) > 0 {
		return name + ": " + oneOf(e)
	}
	return name
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func join(key, name string) string {
	switch {
	case !plainKey.MatchString(name):
		return fmt.Sprintf("%s[%q]", key, name)
	case key == "":
		return name
	}
	return key + "." + name
}
