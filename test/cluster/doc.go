// Package cluster starts a Kubernetes control plane with Gatekeeper and oke-sign on one
// machine, for tests. It needs no containers and downloads no program. It builds etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, Gatekeeper and the rest from
// their Go modules, and runs them as local processes.
//
// A cluster has its own network, process and mount namespaces. So it can reach no other
// network and cannot be reached from one. Several clusters run side by side with the
// same addresses. When a cluster's first process ends, for any reason, the kernel ends
// all others. Two addresses are forwarded from free ports of the host's loopback: the
// API server and the OCI emulator.
//
// Services have real addresses in 127.96.0.0/16. Every address in this network belongs
// to the machine itself, and package services forwards connections to Pods. kwok
// simulates most Pods. The Pods of Gatekeeper and oke-sign run as processes, by package
// kubelet, on a Node reserved for them.
//
// Use it for tests only. Its etcd does not sync to disk, its administrator's key is in
// its folder, and its emulator is not Oracle Cloud.
package cluster
