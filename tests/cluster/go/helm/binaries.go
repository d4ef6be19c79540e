//go:build binaries

// The blank import keeps the command in go.mod.
package binaries

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
