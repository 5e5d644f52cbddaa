// Package kubelet runs the Pods of one Node as processes of this machine. It serves
// clusters without containers in which some programs must be real: Gatekeeper and
// oke-sign's provider, installed by their charts.
//
// A container is a process with a separate root. The root has the program that
// replaces its image, or the files of the image, which is pulled with the Pod's
// imagePullSecrets. The root also has the Pod's volumes, /proc and a few devices,
// and nothing else of the machine. The container has its ServiceAccount's token and
// sees changes of its Secrets and ConfigMaps. Probes decide whether it is ready and
// whether it is restarted. A container that ends starts again after 0.2 s to 5 s. A
// real kubelet waits from 10 s to minutes. All Pods share one network. A
// program that would listen on every address must be told its Pod's address, by
// [Program.Args].
//
// Pods, the names of their images, and the API server are trusted. A separate root
// prevents accidents, not attacks. Resources are not limited. Probes by exec and gRPC,
// hooks, links in images, and volumes that kubelet does not fill are not supported.
// They keep the container from starting, and its status says so. The image of a running
// Pod cannot be changed. kubectl logs and exec do not work.
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

// Config configures a [Kubelet]. Every field but Registries is required.
type Config struct {
	Client   kubernetes.Interface // may do what kubelets do, and read every Secret and ConfigMap
	Node     string               // name of the Node, which is created if it does not exist
	Prefix   netip.Prefix         // the Node's address, which is the first, and its Pods'; all belong to this machine
	Dir      string               // absolute path for volumes, roots and logs
	Programs map[string]Program   // by the image's repository in short form, for example openpolicyagent/gatekeeper
	Log      *slog.Logger

	// Registries is the transport to registries, for images that no program replaces.
	// If it is nil, no image is pulled.
	Registries http.RoundTripper
}

// Program replaces an image.
type Program struct {
	// Path is the program's file, statically linked. In the container it has the path
	// of the container's command, or else its own name in the root.
	Path string

	// Args changes the arguments of a container, if it is not nil. It gets everything
	// after the command, with variables expanded. The Pod's Status.PodIP is set.
	Args func(pod *corev1.Pod, c *corev1.Container, args []string) []string
}

// Process is a running container.
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

// New returns a Kubelet. Call Run to start it.
func New(cfg Config) *Kubelet {
	return &Kubelet{
		Config:    cfg,
		addresses: addresses{prefix: cfg.Prefix.Masked(), used: map[netip.Addr]bool{}},
		tokens:    token.NewManager(cfg.Client),
		pods:      map[types.UID]*pod{},
	}
}

// Run creates the Node and runs its Pods until ctx ends. Then it ends their processes
// without telling the API server, so the next Run starts them again. Run can be called
// once.
func (k *Kubelet) Run(ctx context.Context) error {
	// Registering can fail: controllers write to a new Node at the same time, and the
	// API server may not be up yet.
	for err := k.register(ctx); err != nil; err = k.register(ctx) {
		k.Log.Warn("register node, trying again", "node", k.Node, "err", err)
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
		if _, err := i.AddEventHandler(handler(k.wakeNamespace, k.wakeNamespace)); err != nil {
			return err
		}
	}
	_, err := mine.Core().V1().Pods().Informer().AddEventHandler(handler(
		func(o metav1.Object) { k.observe(ctx, o.(*corev1.Pod)) },
		func(o metav1.Object) { k.podGone(o.GetUID()) }))
	if err != nil {
		return err
	}
	var beats sync.WaitGroup
	beats.Go(func() { k.lease().Run(ctx) })
	beats.Go(func() { k.heartbeat(ctx) })
	// Load Secrets, ConfigMaps and Services before the first Pod.
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

// handler calls seen for new and changed objects, and gone for deleted ones.
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

// wakeNamespace makes the Pods of an object's namespace read their references again.
func (k *Kubelet) wakeNamespace(o metav1.Object) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.namespace == o.GetNamespace() {
			p.wake()
		}
	}
}

// observe starts a new Pod, or passes the wanted state to a known one.
func (k *Kubelet) observe(ctx context.Context, object *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	p := k.pods[object.UID]
	if p == nil {
		if podutil.IsPodTerminal(object) && object.DeletionTimestamp == nil {
			return // it ended under an earlier Run; its deletion is observed later
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

// podGone kills a Pod whose object is deleted.
func (k *Kubelet) podGone(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pods[uid]; p != nil {
		p.kill()
	}
}

// Processes returns the running containers, sorted by namespace, Pod and container.
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

// addresses assigns an address to each Pod. It reuses an address as late as possible,
// because clients may still use it.
type addresses struct {
	prefix netip.Prefix

	mu   sync.Mutex
	last netip.Addr
	used map[netip.Addr]bool
}

// node returns the Node's address.
func (a *addresses) node() netip.Addr { return a.prefix.Addr().Next() }

// take returns the wanted address if it is free, or else the next free one.
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
