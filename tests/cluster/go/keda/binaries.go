//go:build binaries

// The blank imports keep the commands in go.mod.
package binaries

import (
	_ "github.com/kedacore/keda/v2/cmd/adapter"
	_ "github.com/kedacore/keda/v2/cmd/operator"
)
