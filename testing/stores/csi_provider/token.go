package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

type claims struct {
	Audience   []string `json:"aud"`
	Subject    string   `json:"sub"`
	Expires    int64    `json:"exp"`
	Kubernetes struct {
		Namespace string
		Pod       struct{ Name, UID string }
		Account   struct{ Name string } `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type key struct {
	ID         string `json:"kid"`
	Kind       string `json:"kty"`
	N, E, X, Y string
}

// login checks the token that came with a request, and that the request names the pod that the token is of. It returns
// the account.
func login(attributes map[string]string, served State) (account, token string, err error) {
	var tokens map[string]struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expirationTimestamp"`
	}
	if err := json.Unmarshal([]byte(attributes[pod+"serviceAccount.tokens"]), &tokens); err != nil {
		return "", "", fmt.Errorf("serviceAccount.tokens: %w", err)
	}
	given, found := tokens[*audience]
	if !found || len(tokens) != 1 {
		return "", "", fmt.Errorf("no token, or more than one, for audience %q", *audience)
	}
	told, err := verified(given.Token, served.Keys)
	if err != nil {
		return "", given.Token, err
	}
	bound := told.Kubernetes
	switch {
	case !slices.Equal(told.Audience, []string{*audience}):
		err = errors.New("another audience")
	case time.Now().Unix() >= told.Expires || given.Expires.Unix() != told.Expires:
		err = errors.New("expired, or not at the time that was told")
	case bound.Pod.UID == "" || bound.Pod.UID != attributes[pod+"pod.uid"] || bound.Pod.Name != attributes[pod+"pod.name"]:
		err = errors.New("not bound to that pod")
	case bound.Namespace != attributes[pod+"pod.namespace"] || bound.Account.Name != attributes[pod+"serviceAccount.name"]:
		err = errors.New("another service account")
	}
	return told.Subject, given.Token, err
}

func verified(token string, keys json.RawMessage) (claims, error) {
	var told claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return told, errors.New("no JWT")
	}
	var header struct{ Alg, Kid string }
	if err := errors.Join(decode(parts[0], &header), decode(parts[1], &told)); err != nil {
		return told, err
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return told, err
	}
	var set struct{ Keys []key }
	if err := json.Unmarshal(keys, &set); err != nil {
		return told, err
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, candidate := range set.Keys {
		if candidate.ID == header.Kid && candidate.signed(header.Alg, digest[:], signature) {
			return told, nil
		}
	}
	return told, errors.New("not signed by the cluster")
}

func (k key) signed(algorithm string, digest, signature []byte) bool {
	switch {
	case k.Kind == "RSA" && algorithm == "RS256":
		public := &rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())}
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, signature) == nil
	case k.Kind == "EC" && algorithm == "ES256" && len(signature) == 64:
		public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: number(k.X), Y: number(k.Y)}
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		return ecdsa.Verify(public, digest, r, s)
	}
	return false
}

func number(text string) *big.Int {
	content, _ := base64.RawURLEncoding.DecodeString(text)
	return new(big.Int).SetBytes(content)
}

func decode(part string, into any) error {
	content, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, into)
}
