//go:build binaries

// The blank import keeps the module, whose CRDs are read from its config folder, in go.mod.
package binaries

import (
	_ "sigs.k8s.io/gateway-api/apis/v1"
)
