//go:build binaries

// The blank import keeps the command in go.mod.
package binaries

import (
	_ "github.com/fsouza/fake-gcs-server"
)
