package cluster

import (
	"context"
	"io"
	"net"
	"sync"
)

// forwardSocket creates a Unix socket and forwards it to an address of this network
// namespace. The file system is shared between network namespaces, so the socket can be
// reached from outside.
func forwardSocket(ctx context.Context, socket, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	go forward(listener, "tcp", address)
	return nil
}

// forward forwards each connection of listener until listener is closed.
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
				return // the client sees a closed connection
			}
			defer to.Close()
			var both sync.WaitGroup
			both.Go(func() { pump(to, from) })
			both.Go(func() { pump(from, to) })
			both.Wait()
		}()
	}
}

// pump copies one direction and passes its end on. The other direction continues.
func pump(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error and an end of file mean the same here
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
