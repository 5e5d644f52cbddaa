// Package kubelet runs the Pods of one Node as processes of this machine. It is
// for Pods whose programs must be real in a cluster that has no containers:
// Gatekeeper and oke-sign's provider, installed by their own charts.
//
// A container is a process with a root of its own: the program that stands for its
// image or what is in the image, which is pulled with the Pod's imagePullSecrets; the
// Pod's volumes where the Pod wants them, /proc, a few devices, and nothing else of
// the machine. Secrets and ConfigMaps are followed while it runs,
// it has its ServiceAccount's token, probes decide whether it is ready and whether
// it lives, and what ends is started again, after 0.2 s and at most 5 s; a real
// kubelet waits from 10 s to minutes. All Pods share one network: a program that
// would listen on every address has to be told its Pod's, by [Program.Args].
//
// Pods, their images' names and the API server are trusted: the root of a
// container keeps accidents apart, not attackers. Resources are not limited. What
// is not supported (probes by exec and gRPC, hooks, volumes of other kinds than
// kubelet itself fills, links in images) keeps the container from starting, and its status says so.
// The image of a running Pod can not be changed, and kubectl logs and exec have no
// server to talk to.
package kubelet

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/kubelet/token"
)

// Config is what a [Kubelet] works with. Every field but Registries is needed.
type Config struct {
	Client   kubernetes.Interface // may do what kubelets do, and read every Secret and ConfigMap
	Node     string               // name of the Node, which is made if there is none
	Prefix   netip.Prefix         // its first address is the Node's, the others are its Pods'; all of them this machine's
	Dir      string               // absolute; for volumes, roots and logs
	Programs map[string]Program   // by repository of the image, as one writes it: openpolicyagent/gatekeeper
	Log      *slog.Logger

	// Registries is the way to registries, for images that no program stands for. If
	// nil, those are not pulled.
	Registries http.RoundTripper
}

// Program stands for an image.
type Program struct {
	// Path is the program's file, statically linked. In the container it lies where
	// the container's command says, or else in the root under its own name.
	Path string

	// Args, unless nil, returns what the container is started with for what the Pod
	// says it wants: all after the command, variables expanded. Status.PodIP of the
	// Pod is set.
	Args func(pod *corev1.Pod, c *corev1.Container, args []string) []string
}

// Process is a container that runs now.
type Process struct {
	Namespace, Pod, Container string
	PID                       int
	Log                       string // file that all its runs write to
	Restarts                  int
	Started                   time.Time
}

// Kubelet runs the Pods of one Node.
type Kubelet struct {
	Config
	addresses  addresses
	tokens     *token.Manager
	events     record.EventRecorder
	secrets    corelisters.SecretLister
	configMaps corelisters.ConfigMapLister
	services   corelisters.ServiceLister
	pulling    sync.Mutex // while an image is unpacked

	mu   sync.Mutex
	pods map[types.UID]*pod
	wg   sync.WaitGroup // of pods
}

// New returns a Kubelet that does nothing until it is run.
func New(cfg Config) *Kubelet {
	return &Kubelet{
		Config:    cfg,
		addresses: addresses{prefix: cfg.Prefix.Masked(), used: map[netip.Addr]bool{}},
		tokens:    token.NewManager(cfg.Client),
		pods:      map[types.UID]*pod{},
	}
}

// Run makes the Node and runs its Pods until the context ends. Then it ends their
// processes, and tells the API server nothing: the next Run starts them again. It
// can be called once.
func (k *Kubelet) Run(ctx context.Context) error {
	// Controllers write to a new Node at the same time, and the API server may not
	// be there yet.
	for err := k.register(ctx); err != nil; err = k.register(ctx) {
		k.Log.Warn("register node, again in a moment", "node", k.Node, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(registerAgain):
		}
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.Client.CoreV1().Events("")})
	k.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: k.Node})

	all := informers.NewSharedInformerFactory(k.Client, 0)
	mine := informers.NewSharedInformerFactoryWithOptions(k.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.Node).String()
	}))
	k.services = all.Core().V1().Services().Lister()
	k.secrets = all.Core().V1().Secrets().Lister()
	k.configMaps = all.Core().V1().ConfigMaps().Lister()
	for _, i := range []cache.SharedIndexInformer{all.Core().V1().Secrets().Informer(), all.Core().V1().ConfigMaps().Informer()} {
		if _, err := i.AddEventHandler(handler(k.pokeNamespace, k.pokeNamespace)); err != nil {
			return err
		}
	}
	_, err := mine.Core().V1().Pods().Informer().AddEventHandler(handler(
		func(o metav1.Object) { k.observe(ctx, o.(*corev1.Pod)) },
		func(o metav1.Object) { k.forget(o.GetUID()) }))
	if err != nil {
		return err
	}
	var beats sync.WaitGroup
	beats.Go(func() { k.lease().Run(ctx) })
	beats.Go(func() { k.heartbeat(ctx) })
	// What Pods refer to is known before the first of them is.
	all.Start(ctx.Done())
	all.WaitForCacheSync(ctx.Done())
	mine.Start(ctx.Done())
	<-ctx.Done()
	mine.Shutdown()
	all.Shutdown()
	beats.Wait()
	k.wg.Wait()
	return nil
}

// handler gives two functions the objects that are there, new or changed, and
// those that are gone.
func handler(seen, gone func(metav1.Object)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { seen(o.(metav1.Object)) },
		UpdateFunc: func(_, o any) { seen(o.(metav1.Object)) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			gone(o.(metav1.Object))
		},
	}
}

// pokeNamespace makes the Pods of an object's namespace look at what they refer to.
func (k *Kubelet) pokeNamespace(o metav1.Object) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.namespace == o.GetNamespace() {
			p.poke()
		}
	}
}

// observe starts a Pod that is new and tells another one how it is wanted now.
func (k *Kubelet) observe(ctx context.Context, object *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	p := k.pods[object.UID]
	if p == nil {
		if podutil.IsPodTerminal(object) && object.DeletionTimestamp == nil {
			return // ended under an earlier Run; seen again when it is deleted
		}
		created, life := k.newPod(ctx, object)
		p = created
		k.pods[object.UID] = p
		k.wg.Go(func() {
			p.run(ctx, life)
			k.mu.Lock()
			delete(k.pods, p.uid)
			k.mu.Unlock()
		})
	}
	p.want(object)
}

// forget ends a Pod at once whose object is gone.
func (k *Kubelet) forget(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pods[uid]; p != nil {
		p.kill()
	}
}

// Processes returns the containers that run now, sorted by namespace, Pod and
// container.
func (k *Kubelet) Processes() []Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Process
	for _, p := range k.pods {
		all = append(all, p.processes()...)
	}
	slices.SortFunc(all, func(a, b Process) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return all
}

// addresses gives each Pod one of its own, and one that was used lately only when
// there is no other: a client may still hold it.
type addresses struct {
	prefix netip.Prefix

	mu   sync.Mutex
	last netip.Addr
	used map[netip.Addr]bool
}

// node is the Node's own address.
func (a *addresses) node() netip.Addr { return a.prefix.Addr().Next() }

// take returns the address wanted if it is free, or else the next that is.
func (a *addresses) take(wanted netip.Addr) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.prefix.Contains(wanted) && !a.used[wanted] {
		a.used[wanted] = true
		return wanted, nil
	}
	next := a.last
	for range 1 << min(16, a.prefix.Addr().BitLen()-a.prefix.Bits()) {
		if next = next.Next(); !a.prefix.Contains(next) {
			next = a.node().Next()
		}
		if !a.used[next] {
			a.used[next], a.last = true, next
			return next, nil
		}
	}
	return netip.Addr{}, errors.New("no address is free")
}

func (a *addresses) free(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, addr)
}
