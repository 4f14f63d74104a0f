package filter

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Needs is what an event must be for a filter to match it, as far as the expression says it plainly: what does not meet them need not be looked at. An event that meets them
// may still not match.
type Needs struct {
	// Sources are the names that `event.source` may have; nil is any.
	Sources []string
	// Types are what `event.type` may be, or begin with; nil is any.
	Types []Type
}

// Type is a type of events, or a beginning of types.
type Type struct {
	Text   string
	Prefix bool
}

// Needs returns what events must be.
func (f *Filter) Needs() Needs { return f.needs }

// needsOf reads an expression: of conditions joined by `&&` each must hold, so each that is understood narrows, and the others are passed over.
func needsOf(e ast.Expr) Needs {
	var n Needs
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.LogicalAnd {
		for _, part := range e.AsCall().Args() {
			n = n.and(needsOf(part))
		}
		return n
	}
	if sources, ok := alternatives(e, "source"); ok && !slices.ContainsFunc(sources, func(t Type) bool { return t.Prefix }) {
		n.Sources = make([]string, 0, len(sources))
		for _, s := range sources {
			n.Sources = append(n.Sources, s.Text)
		}
	}
	if kinds, ok := alternatives(e, "type"); ok {
		n.Types = kinds
	}
	return n
}

// and is what must be where both must be. Of two lists one is enough: a wider need is no wrong one.
func (n Needs) and(m Needs) Needs {
	if n.Sources == nil {
		n.Sources = m.Sources
	}
	if n.Types == nil {
		n.Types = m.Types
	}
	return n
}

// alternatives returns what a field of the event must be for the expression to be true: `==`, `in` a list, `startsWith`, and any of these joined by `||`. ok is false where the
// expression says something else.
func alternatives(e ast.Expr, field string) (list []Type, ok bool) {
	if e.Kind() != ast.CallKind {
		return nil, false
	}
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalOr:
		for _, part := range args {
			more, ok := alternatives(part, field)
			if !ok {
				return nil, false
			}
			list = append(list, more...)
		}
		return list, true
	case operators.Equals:
		for i := range 2 {
			if text, ok := literal(args[i]); ok && isField(args[1-i], field) {
				return []Type{{Text: text}}, true
			}
		}
	case operators.In:
		if !isField(args[0], field) || args[1].Kind() != ast.ListKind {
			return nil, false
		}
		for _, element := range args[1].AsList().Elements() {
			text, ok := literal(element)
			if !ok {
				return nil, false
			}
			list = append(list, Type{Text: text})
		}
		return list, len(list) > 0
	case "startsWith":
		if text, ok := literal(args[0]); ok && call.IsMemberFunction() && isField(call.Target(), field) {
			return []Type{{Text: text, Prefix: true}}, true
		}
	}
	return nil, false
}

// isField tells whether an expression is `event.<field>`.
func isField(e ast.Expr, field string) bool {
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() || e.AsSelect().FieldName() != field {
		return false
	}
	operand := e.AsSelect().Operand()
	return operand.Kind() == ast.IdentKind && strings.TrimPrefix(operand.AsIdent(), ".") == "event"
}

// literal returns the text of a string in the expression.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}
