//go:build binaries

// The blank import keeps the command in go.mod.
package binaries

import (
	_ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
)
