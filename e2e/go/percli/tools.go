//go:build tools

// Package tools pins Perses' command line client: the tests drive the server with the real one.
package tools

import _ "github.com/perses/perses/cmd/percli"
