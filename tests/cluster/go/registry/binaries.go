//go:build binaries

// The blank import keeps the command in go.mod.
package binaries

import (
	_ "oras.land/oras/cmd/oras"
)
