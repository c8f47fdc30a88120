//go:build tools

// Package tools pins upstream's operator: the tests run our server's image under the real one.
package tools

import _ "github.com/perses/perses-operator"
