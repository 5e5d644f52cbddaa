// Package cluster starts a Kubernetes control plane with Gatekeeper and oke-sign
// on one machine, without containers and without downloading a program: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, Gatekeeper and the rest
// are built from their Go modules and run as local processes.
//
// A cluster lives in network, process and mount namespaces of its own. So nothing
// of it can reach or be reached from another network, several run side by side
// with the same addresses, and when its first process ends, for whatever reason,
// the kernel ends all the others. Two doors lead in: the API server and the OCI
// emulator are forwarded from free ports of the host's loopback.
//
// Services are real: their addresses lie in 127.96.0.0/16, of which every address
// is the machine's own, and package services forwards them to Pods. Most Pods are
// pretended by kwok; those of Gatekeeper and oke-sign run as processes, by package
// kubelet, on a Node kept for them.
//
// It is for tests. Its etcd does not sync to disk, its administrator's key lies in
// its folder, and its emulator is not Oracle Cloud.
package cluster
