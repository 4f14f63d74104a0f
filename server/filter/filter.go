// Package filter decides with a CEL expression whether an event is wanted.
//
// The expression sees one variable, `event`, of type eventrelay.v1.Event. Reading a payload that is not set gives its empty message, `has(event.message)` asks whether
// it is set, and enum constants are in scope by their full name (`whatsapp.webhooks.v1.StatusState.STATUS_STATE_READ`).
package filter

import (
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// costLimit bounds the evaluation of one filter on one event, in CEL's cost units (a comparison is one, scanning ten characters is one). It allows a search
// through the largest body that is accepted, and stops nested loops over long lists within milliseconds.
const costLimit = 1_000_000

// Filter is a compiled expression. It may be used by any number of goroutines at once.
type Filter struct {
	// program is nil for the filter that matches everything.
	program cel.Program
	needs   Needs
}

// InvalidError says where and why an expression does not compile.
type InvalidError struct {
	// Line and Column are where the first fault lies, from 1; 0 if it concerns the whole expression.
	Line, Column int
	// Message says what is wrong there.
	Message string
}

// Error names the place and the fault.
func (e *InvalidError) Error() string {
	if e.Line == 0 {
		return "filter: " + e.Message
	}
	return fmt.Sprintf("filter: line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// environment is what every expression is compiled in; building it registers all descriptors, so it is done once.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Types(&eventrelayv1.Event{}),
		cel.Variable("event", cel.ObjectType("eventrelay.v1.Event")),
		cel.CrossTypeNumericComparisons(true),
		ext.Strings(),
	)
})

// Compile makes a filter of an expression; the empty expression matches every event. The error is an *InvalidError if the expression is at fault.
func Compile(expression string) (*Filter, error) {
	if strings.TrimSpace(expression) == "" {
		return &Filter{}, nil
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("build filter environment: %w", err)
	}
	ast, issues := env.Compile(expression)
	if errs := issues.Errors(); len(errs) > 0 {
		first := errs[0]
		return nil, &InvalidError{Line: first.Location.Line(), Column: first.Location.Column() + 1, Message: first.Message}
	}
	if out := ast.OutputType(); !out.IsExactType(cel.BoolType) && !out.IsExactType(cel.DynType) {
		return nil, &InvalidError{Message: fmt.Sprintf("the expression is of type %s, it must be true or false", out)}
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
	if err != nil {
		// Optimizing evaluates the constant parts, a malformed regular expression among them.
		return nil, &InvalidError{Message: err.Error()}
	}
	return &Filter{program: program, needs: needsOf(ast.NativeRep().Expr())}, nil
}

// Match reports whether the event is wanted. An error means that the evaluation failed on this event, at the cost limit for instance; the event then counts as not wanted.
func (f *Filter) Match(event *eventrelayv1.Event) (bool, error) {
	if f.program == nil {
		return true, nil
	}
	out, _, err := f.program.Eval(map[string]any{"event": event})
	if err != nil {
		return false, fmt.Errorf("evaluate filter: %w", err)
	}
	wanted, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("evaluate filter: the result is of type %s, not true or false", out.Type())
	}
	return wanted, nil
}
