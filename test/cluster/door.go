package cluster

import (
	"context"
	"io"
	"net"
	"sync"
)

// openDoor makes a socket in the file system, which network namespaces do not
// divide, and forwards it to an address of this one.
func openDoor(ctx context.Context, socket, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	go forward(listener, "tcp", address)
	return nil
}

// forward forwards what connects to listener, until that is closed.
func forward(listener net.Listener, network, address string) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := (&net.Dialer{}).Dial(network, address)
			if err != nil {
				return // to the client as if nobody listened
			}
			defer to.Close()
			var both sync.WaitGroup
			both.Go(func() { pump(to, from) })
			both.Go(func() { pump(from, to) })
			both.Wait()
		}()
	}
}

// pump copies one direction and passes on its end, which is not the end of the
// other.
func pump(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error ends it as an end does
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
