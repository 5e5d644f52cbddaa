// Package services makes the Services of a cluster work on one machine, as
// kube-proxy and the cluster's DNS do, in user space: it listens on the address of
// each Service, which must be one of the machine's, and forwards connections to
// the Service's ready endpoints in turn; and it writes the names of Services into
// a hosts file.
//
// TCP and IPv4 only, no session affinity, and a Pod sees connections come from the
// machine itself. A Service that no EndpointSlice belongs to is left alone, so that
// somebody else may listen on its address; one without a ready endpoint refuses
// connections. The API server is trusted. A program in Go may keep what it read of
// the hosts file for five seconds.
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

// Config is what [Run] works with. Every field is needed.
type Config struct {
	Client kubernetes.Interface
	Hosts  string         // file, rewritten in place, so that it can be mounted somewhere
	API    netip.AddrPort // of the API server, which is the endpoint of default/kubernetes
	Log    *slog.Logger
}

// again is when to look once more at what could not be done, such as listening on
// an address that somebody else has.
const again = time.Second

// Run forwards connections and writes names until the context ends; then it closes
// every connection.
func Run(ctx context.Context, cfg Config) error {
	factory := informers.NewSharedInformerFactory(cfg.Client, 0)
	known := factory.Core().V1().Services()
	ends := factory.Discovery().V1().EndpointSlices()
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default: // it is known already
		}
	}
	for _, i := range []cache.SharedIndexInformer{known.Informer(), ends.Informer()} {
		_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { poke() },
			UpdateFunc: func(any, any) { poke() },
			DeleteFunc: func(any) { poke() },
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
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer:
		}
	}
	return nil
}

// Forwards is where connections to each address and port of a Service go. One that
// is listened to by nobody here is not in it.
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
			// The API server does not publish an address of loopback.
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

// ready is the endpoints of a Service's port: those that are ready or, if there is
// none, those that serve while they end.
func ready(endpoints []*discoveryv1.EndpointSlice, s *corev1.Service, port string) []netip.AddrPort {
	var now, ending []netip.AddrPort
	for _, slice := range of(endpoints, s) {
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

// of is the EndpointSlices of a Service.
func of(endpoints []*discoveryv1.EndpointSlice, s *corev1.Service) []*discoveryv1.EndpointSlice {
	var own []*discoveryv1.EndpointSlice
	for _, e := range endpoints {
		if e.Namespace == s.Namespace && e.Labels[discoveryv1.LabelServiceName] == s.Name && e.AddressType == discoveryv1.AddressTypeIPv4 {
			own = append(own, e)
		}
	}
	return own
}

// Hosts is the text of a hosts file with the names of Services, as cluster DNS
// knows them. A headless Service is its ready endpoints.
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

// addresses are those of a Service's ready endpoints, whatever their port.
func addresses(endpoints []*discoveryv1.EndpointSlice, s *corev1.Service) []string {
	var all []string
	for _, slice := range of(endpoints, s) {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				all = append(all, e.Addresses...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// rewrite gives the file its content in one write and keeps its inode, which is
// what a mount shows. The file is never seen empty.
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
