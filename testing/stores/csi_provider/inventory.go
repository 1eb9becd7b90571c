package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.(eyJ[A-Za-z0-9_-]{10,})\.[A-Za-z0-9_-]{10,}`)

// Inventory is what a process finds in its own container.
type Inventory struct {
	Files    int               `json:"files"`
	Tokens   map[string]string `json:"tokens"` // the account that a token is of, by path of the file
	User     int               `json:"user"`
	Writable bool              `json:"writable"` // its root
	Powers   string            `json:"powers"`   // effective capabilities
}

// inventory prints what there is, as a line of JSON.
func inventory() {
	found := Inventory{Tokens: map[string]string{}, User: os.Getuid()}
	_ = filepath.WalkDir("/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if path == "/proc" || path == "/sys" {
			return filepath.SkipDir
		}
		// A token that Kubernetes mounts is a symbolic link.
		about, err := os.Stat(path)
		if err != nil || !about.Mode().IsRegular() || about.Size() > 1<<20 {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		found.Files++
		if match := jwt.FindSubmatch(content); match != nil {
			var told claims
			_ = decode(string(match[1]), &told)
			found.Tokens[path] = told.Subject
		}
		return nil
	})
	if match := jwt.FindString(strings.Join(os.Environ(), " ")); match != "" {
		found.Tokens["environment"] = "?"
	}
	if err := os.WriteFile("/probe", nil, 0o600); err == nil {
		found.Writable = true
	}
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			found.Powers = strings.TrimSpace(value)
		}
	}
	line, _ := json.Marshal(found)
	fmt.Println(string(line))
}
