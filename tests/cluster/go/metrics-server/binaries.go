//go:build binaries

// The blank import keeps the command in go.mod.
package binaries

import (
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
