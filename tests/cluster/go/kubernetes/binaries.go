//go:build binaries

// The blank imports keep the commands that the local cluster runs in go.mod: go mod tidy would drop them.
// The add-ons are in this module too, at versions that ask for no newer dependency of weight than Kubernetes has:
// so they share what is compiled for it.
package binaries

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
