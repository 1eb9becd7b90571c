// Command sealing seals and opens values as docs/sealing.md describes it, with Go's crypto/hpke: a second
// implementation, so that the format is what is written down and not whatever the first one does.
//
// It reads one JSON document with questions and writes one with answers.
package main

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	format       = "runkeys.dev/sealing/v1"
	maxValue     = 512 << 10
	encapsulated = 1120
	tag          = 16
)

// How many parts a context of each kind has.
var kinds = map[string]int{"binding-entry": 3, "namespace-entry": 2, "personal-entry": 3, "run-input": 3, "pod-parameter": 2}

type context struct {
	Kind  string   `json:"kind"`
	Parts []string `json:"parts"`
}

type questions struct {
	Seeds [][]byte `json:"seeds"`
	Open  []struct {
		Context context `json:"context"`
		Text    string  `json:"text"`
	} `json:"open"`
	Seal []struct {
		Public  string  `json:"public"`
		Context context `json:"context"`
		Value   []byte  `json:"value"`
	} `json:"seal"`
}

type opened struct {
	Value []byte `json:"value"`
	Error string `json:"error"`
}

type answers struct {
	Suite  []uint16 `json:"suite"`
	Public []string `json:"public"`
	Open   []opened `json:"open"`
	Seal   []string `json:"seal"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var asked questions
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	said := answers{
		Suite: []uint16{hpke.MLKEM768X25519().ID(), hpke.HKDFSHA256().ID(), hpke.AES256GCM().ID()},
	}
	keys := map[string]hpke.PrivateKey{}
	for _, seed := range asked.Seeds {
		key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
		if err != nil {
			return err
		}
		raw := key.PublicKey().Bytes()
		keys[keyID(raw)] = key
		said.Public = append(said.Public, "rkpub1."+base64.RawURLEncoding.EncodeToString(raw))
	}
	for _, question := range asked.Open {
		value, err := open(question.Text, question.Context, keys)
		answer := opened{Value: value}
		if err != nil {
			answer.Error = err.Error()
		}
		said.Open = append(said.Open, answer)
	}
	for _, question := range asked.Seal {
		text, err := seal(question.Value, question.Context, question.Public)
		if err != nil {
			return err
		}
		said.Seal = append(said.Seal, text)
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

func seal(value []byte, where context, public string) (string, error) {
	encoded, found := strings.CutPrefix(public, "rkpub1.")
	if !found {
		return "", errors.New("no public key")
	}
	raw, err := decode(encoded)
	if err != nil {
		return "", err
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(raw)
	if err != nil {
		return "", err
	}
	info, err := where.encode()
	if err != nil {
		return "", err
	}
	size, err := padded(len(value))
	if err != nil {
		return "", err
	}
	body := binary.BigEndian.AppendUint32(nil, uint32(len(value)))
	body = append(body, value...)
	body = append(body, make([]byte, size-len(value))...)
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, body)
	if err != nil {
		return "", err
	}
	return "rk1." + keyID(raw) + "." + base64.RawURLEncoding.EncodeToString(sealed), nil
}

func open(text string, where context, keys map[string]hpke.PrivateKey) ([]byte, error) {
	pieces := strings.Split(text, ".")
	if len(pieces) != 3 || pieces[0] != "rk1" {
		return nil, errors.New("malformed: no sealed value")
	}
	if id, err := hex.DecodeString(pieces[1]); err != nil || len(id) != 8 || hex.EncodeToString(id) != pieces[1] {
		return nil, errors.New("malformed: no key id")
	}
	sealed, err := decode(pieces[2])
	if err != nil {
		return nil, err
	}
	size := len(sealed) - encapsulated - 4 - tag
	if size < 0 {
		return nil, errors.New("malformed: too short")
	}
	if step, err := padded(size); err != nil || step != size {
		return nil, errors.New("malformed: no such length")
	}
	key, found := keys[pieces[1]]
	if !found {
		return nil, errors.New("unknown key")
	}
	info, err := where.encode()
	if err != nil {
		return nil, err
	}
	body, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil {
		return nil, errors.New("mismatch")
	}
	length := uint64(binary.BigEndian.Uint32(body))
	rest := body[4:]
	if length > uint64(len(rest)) {
		return nil, errors.New("malformed: length beyond the end")
	}
	if step, err := padded(int(length)); err != nil || step != len(rest) {
		return nil, errors.New("malformed: another step")
	}
	if len(bytes.Trim(rest[length:], "\x00")) != 0 {
		return nil, errors.New("malformed: padding is not zero")
	}
	return rest[:length], nil
}

// encode gives the bytes that HPKE takes as info.
func (where context) encode() ([]byte, error) {
	if count, known := kinds[where.Kind]; !known || count != len(where.Parts) {
		return nil, errors.New("no such context")
	}
	var info []byte
	for _, part := range append([]string{format, where.Kind}, where.Parts...) {
		info = append(prefixed(info, part), part...)
	}
	return info, nil
}

func prefixed(to []byte, part string) []byte {
	return binary.BigEndian.AppendUint32(to, uint32(len(part)))
}

func keyID(raw []byte) string {
	var labelled []byte
	for _, part := range []string{format, "public-key"} {
		labelled = append(prefixed(labelled, part), part...)
	}
	digest := sha256.Sum256(append(labelled, raw...))
	return hex.EncodeToString(digest[:8])
}

// padded says how long a value of this length is made: the next size of the table in docs/sealing.md.
func padded(length int) (int, error) {
	for size := 256; size <= maxValue; {
		if length <= size {
			return size, nil
		}
		if size < 4096 {
			size += 256
		} else {
			size += 4096
		}
	}
	return 0, errors.New("too large")
}

// decode takes base64url without padding, in its one form only.
func decode(text string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	// Go leaves out line breaks, even here.
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("malformed: no base64url")
	}
	return raw, nil
}
