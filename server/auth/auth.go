// Package auth says who is calling, and what they may do.
//
// A caller shows a bearer token; the tokens file holds the SHA-256 of each token with its role. A plain hash is enough: a token is 256 random bits, so there is nothing
// to guess that a slow hash would make dearer, and a check costs each call a microsecond instead of a tenth of a second. Tokens are looked up by their hash, so the time
// of a lookup says nothing about how near a guess came, and nothing that is kept can be shown in place of a token.
//
// The role that a call needs stands on its method in the protos, and nowhere else.
//
// The room also holds what proves the other side of a connection: the server's own certificate, and the check of the certificate that Meta shows. All of it is read
// from files that are looked at again while the server runs; what cannot be read leaves the last good state in place.
package auth

import (
	"errors"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// Why a caller is refused. None of their texts holds anything that the caller sent.
var (
	// ErrTokenMissing means that no token is shown.
	ErrTokenMissing = errors.New("no token: send the header `authorization` as `Bearer` and a token")
	// ErrTokenInvalid means that what is shown is no token, more than one, or none of this server's.
	ErrTokenInvalid = errors.New("the token is not one of this server, or not any more")
	// ErrTokenExpired means that the token's time has passed.
	ErrTokenExpired = errors.New("the token has expired: ask the operator of this server for a new one")
)

// Role is what a caller may do. A role includes those below it.
type Role = eventrelayv1.Role

// The roles. Nobody has to be anybody to make a call that needs Anyone.
const (
	Anyone   = eventrelayv1.Role_ROLE_UNSPECIFIED
	Reader   = eventrelayv1.Role_ROLE_READER
	Operator = eventrelayv1.Role_ROLE_OPERATOR
)

// roleNames are the roles as people write them.
var roleNames = map[Role]string{Reader: "reader", Operator: "operator"}

// RoleError says that a caller is known and may not do what it asks for.
type RoleError struct {
	// Caller is the name of the token, for the server's own log.
	Caller string
	// Required is the role that the call needs.
	Required Role
}

// Error says which role is needed.
func (e *RoleError) Error() string {
	return "the call needs a token with role " + roleNames[e.Required]
}

// RequiredName is the role that the call needs as the tokens file writes it.
func (e *RoleError) RequiredName() string { return roleNames[e.Required] }
