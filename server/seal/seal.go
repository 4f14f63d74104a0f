// Package seal encrypts secrets before they are stored, under keys that lie elsewhere.
//
// Sealed data is bound to a purpose, a word that names what it is: put in the place of other data it does not open. It says under which key it was sealed, so that a missing
// key is told from damage, and data under a key that is being replaced can be found and sealed anew.
//
// The cipher is XChaCha20-Poly1305, whose nonces are long enough to be random without counting them, by way of Tink, whose key sets hold several keys and whose output names
// its key.
package seal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xchacha20poly1305"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
)

var (
	// ErrWrongKey is returned by Open for what was sealed under a key that is not among the keys.
	ErrWrongKey = errors.New("sealed under a key that is not in the key file")
	// ErrDamaged is returned by Open for what was changed, cut, or sealed for another purpose.
	ErrDamaged = errors.New("sealed data is damaged or belongs elsewhere")
)

const (
	// keySize is the length of a key in bytes.
	keySize = 32
	// prefixSize is the length of what stands before sealed data to name its key.
	prefixSize = 5
)

// Keys seal and open. They are safe for concurrent use, and no way of printing them shows a key.
type Keys struct {
	// prefixes name the keys, the first key's first.
	prefixes [][]byte
	// The keys live in closures, for nothing that goes through a value by reflection sees into one.
	encrypt, decrypt func(data, purpose []byte) ([]byte, error)
}

// newKeys makes keys of the bytes of at least one, the one that encrypts first. An error says the number of the key that it is about, from 1.
func newKeys(raw [][]byte) (*Keys, error) {
	parameters, err := xchacha20poly1305.NewParameters(xchacha20poly1305.VariantTink)
	if err != nil {
		return nil, fmt.Errorf("set up the cipher: %w", err)
	}
	k, manager := &Keys{}, keyset.NewManager()
	for i, data := range raw {
		if len(data) != keySize {
			return nil, fmt.Errorf("key %d has %d bytes instead of %d; make one with `openssl rand -base64 %d`", i+1, len(data), keySize, keySize)
		}
		key, err := xchacha20poly1305.NewKey(secretdata.NewBytesFromData(data, insecuresecretdataaccess.Token{}), keyID(data), parameters)
		if err != nil {
			return nil, fmt.Errorf("key %d cannot be used: %w", i+1, err)
		}
		id, err := manager.AddKey(key)
		if err != nil {
			return nil, fmt.Errorf("key %d cannot be used; is it given twice? %w", i+1, err)
		}
		if i == 0 {
			if err := manager.SetPrimary(id); err != nil {
				return nil, fmt.Errorf("key 1 cannot be used: %w", err)
			}
		}
		k.prefixes = append(k.prefixes, key.OutputPrefix())
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, fmt.Errorf("set up the keys: %w", err)
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("set up the cipher: %w", err)
	}
	k.encrypt, k.decrypt = primitive.Encrypt, primitive.Decrypt
	return k, nil
}

// Seal encrypts data under the first key and binds it to the purpose.
func (k *Keys) Seal(data []byte, purpose string) ([]byte, error) {
	sealed, err := k.encrypt(data, []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", purpose, err)
	}
	return sealed, nil
}

// Open returns what was sealed for the purpose under any of the keys, or an error that wraps ErrWrongKey or ErrDamaged.
func (k *Keys) Open(sealed []byte, purpose string) ([]byte, error) {
	known := false
	for _, prefix := range k.prefixes {
		known = known || bytes.HasPrefix(sealed, prefix)
	}
	switch {
	case len(sealed) < prefixSize:
		return nil, fmt.Errorf("open %s: %w", purpose, ErrDamaged)
	case !known:
		return nil, fmt.Errorf("open %s: %w", purpose, ErrWrongKey)
	}
	data, err := k.decrypt(sealed, []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", purpose, ErrDamaged)
	}
	return data, nil
}

// Current reports whether data was sealed under the first key, so that no other is needed for it.
func (k *Keys) Current(sealed []byte) bool { return bytes.HasPrefix(sealed, k.prefixes[0]) }
