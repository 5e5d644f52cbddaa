// Package services makes the Services of a cluster work on one machine, in user
// space. It replaces kube-proxy and the cluster's DNS. It listens on the address of
// each Service, which must be an address of this machine. It forwards connections to
// the Service's ready endpoints in turn. It writes the names of Services into a
// hosts file.
//
// It supports TCP and IPv4 only, without session affinity. A Pod sees the machine
// itself as the source of connections. A Service without EndpointSlices is ignored, so
// another program may listen on its address. A Service without a ready endpoint refuses
// connections. The API server is trusted. A Go program may cache what it read of the
// hosts file for five seconds.
package services

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Config configures [Run]. Every field is required.
type Config struct {
	Client kubernetes.Interface
	Hosts  string         // hosts file; it is rewritten in place, so that it can be mounted
	API    netip.AddrPort // of the API server, which is the endpoint of default/kubernetes
	Log    *slog.Logger
}

// retryDelay is the pause before another try, for example after an address was in use.
const retryDelay = time.Second

// Run forwards connections and writes names until ctx ends. Then it closes every
// connection.
func Run(ctx context.Context, cfg Config) error {
	factory := informers.NewSharedInformerFactory(cfg.Client, 0)
	known := factory.Core().V1().Services()
	ends := factory.Discovery().V1().EndpointSlices()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // a notification is pending
		}
	}
	for _, i := range []cache.SharedIndexInformer{known.Informer(), ends.Informer()} {
		_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		})
		if err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	factory.WaitForCacheSync(ctx.Done())

	open := ports{log: cfg.Log, open: map[netip.AddrPort]*port{}}
	ctx, cancel := context.WithCancel(ctx)
	defer open.close()
	defer cancel()
	names := ""
	for ctx.Err() == nil {
		services, err := known.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		endpoints, err := ends.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		retry := open.serve(ctx, Forwards(services, endpoints, cfg.API))
		if now := Hosts(services, endpoints); now != names {
			if err := rewrite(cfg.Hosts, now); err != nil {
				return fmt.Errorf("hosts: %w", err)
			}
			names = now
		}
		var timer <-chan time.Time
		if retry {
			timer = time.After(retryDelay)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer:
		}
	}
	return nil
}

// Forwards returns the endpoints of each address and port of a Service. It omits
// Services that do not listen here.
func Forwards(services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice, api netip.AddrPort) map[netip.AddrPort][]netip.AddrPort {
	to := map[netip.AddrPort][]netip.AddrPort{}
	for _, s := range services {
		addr, err := netip.ParseAddr(s.Spec.ClusterIP)
		if err != nil || !addr.Is4() || s.Spec.Type == corev1.ServiceTypeExternalName {
			continue // headless
		}
		for _, p := range s.Spec.Ports {
			if p.Protocol != corev1.ProtocolTCP {
				continue
			}
			ends := ready(endpoints, s, p.Name)
			// The API server does not publish its own loopback address.
			if s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes" {
				ends = []netip.AddrPort{api}
			}
			if len(ends) > 0 {
				to[netip.AddrPortFrom(addr, uint16(p.Port))] = ends
			}
		}
	}
	return to
}

// ready returns the endpoints of a Service's port: those that are ready or, if none is,
// those that still serve while they end.
func ready(endpoints []*discoveryv1.EndpointSlice, s *corev1.Service, port string) []netip.AddrPort {
	var now, ending []netip.AddrPort
	for _, slice := range slicesOf(endpoints, s) {
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name == nil || *p.Name != port {
				continue
			}
			for _, e := range slice.Endpoints {
				for _, a := range e.Addresses {
					addr, err := netip.ParseAddr(a)
					if err != nil {
						continue
					}
					to := netip.AddrPortFrom(addr, uint16(*p.Port))
					switch c := e.Conditions; {
					case c.Ready == nil || *c.Ready:
						now = append(now, to)
					case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
						ending = append(ending, to)
					}
				}
			}
		}
	}
	if len(now) == 0 {
		now = ending
	}
	slices.SortFunc(now, netip.AddrPort.Compare)
	return slices.Compact(now)
}

// slicesOf returns the EndpointSlices of a Service.
func slicesOf(endpoints []*discoveryv1.EndpointSlice, s *corev1.Service) []*discoveryv1.EndpointSlice {
	var own []*discoveryv1.EndpointSlice
	for _, e := range endpoints {
		if e.Namespace == s.Namespace && e.Labels[discoveryv1.LabelServiceName] == s.Name && e.AddressType == discoveryv1.AddressTypeIPv4 {
			own = append(own, e)
		}
	}
	return own
}

// Hosts returns the text of a hosts file with the names of Services, as cluster DNS has
// them. The name of a headless Service has the addresses of its ready endpoints.
func Hosts(services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice) string {
	services = slices.SortedFunc(slices.Values(services), func(a, b *corev1.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, s := range services {
		addrs := []string{s.Spec.ClusterIP}
		if s.Spec.ClusterIP == corev1.ClusterIPNone {
			addrs = addresses(endpoints, s)
		}
		name := s.Name + "." + s.Namespace
		for _, addr := range addrs {
			if _, err := netip.ParseAddr(addr); err == nil {
				fmt.Fprintf(&b, "%s %s.svc.cluster.local %s.svc %s\n", addr, name, name, name)
			}
		}
	}
	return b.String()
}

// addresses returns the addresses of a Service's ready endpoints, for any port.
func addresses(endpoints []*discoveryv1.EndpointSlice, s *corev1.Service) []string {
	var all []string
	for _, slice := range slicesOf(endpoints, s) {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				all = append(all, e.Addresses...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// rewrite replaces the content of the file with one write. It keeps the inode, because
// a mount shows the inode. Readers never see an empty file.
func rewrite(path, content string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(content), 0)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
