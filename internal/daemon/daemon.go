package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tcprepair/ustack/stack"
)

// Daemon is a running stack with its services and control socket.
type Daemon struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	link     gstack.LinkEndpoint
	linkName string
	stack    *stack.Stack
	services []*runningService

	socket  *controlSocket // nil: none
	control *http.Server

	running sync.WaitGroup // what New started
	failed  chan error     // capacity 1: the first thing that ended by itself
	once    sync.Once
}

// runningService is a Service that is being served.
type runningService struct {
	Service
	server   server
	listener *limiter
}

// Run runs a daemon until ctx ends, SIGINT, SIGTERM or SIGHUP comes, or its link
// fails, and then ends it in order. A second signal ends it at once. The error
// is a *UsageError if the configuration is wrong.
func Run(ctx context.Context, cfg Config) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)

	d, err := New(cfg)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case sig := <-signals:
		d.log.Info("ending", "signal", sig.String())
	case err = <-d.failed:
		d.log.Error("ending", "error", err)
	}
	grace, cancel := context.WithTimeout(context.Background(), d.cfg.Grace)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ended:
		}
	}()
	d.Close(grace)
	return err
}

// New starts a daemon. If it fails, everything that it opened is closed. The
// error is a *UsageError if the configuration is wrong.
func New(cfg Config) (*Daemon, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d := &Daemon{cfg: cfg, log: cfg.Logger, started: time.Now(), failed: make(chan error, 1)}
	if err := d.open(); err != nil {
		return nil, err
	}
	for _, s := range d.services {
		d.running.Go(func() { d.serve(s) })
		d.log.Info("serving", "service", s.Service.String())
	}
	if d.socket != nil {
		d.running.Go(func() { d.control.Serve(d.socket) })
		d.log.Info("control socket", "path", cfg.Control)
	}
	d.running.Go(d.watchLink)
	return d, nil
}

// open opens, in this order, what is most likely to fail and what depends on
// it: the control socket, which also finds a daemon that runs already, the
// link, the stack, the listeners.
func (d *Daemon) open() (err error) {
	if d.cfg.Control != "" {
		if d.socket, err = listenControl(d.cfg.Control); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				d.socket.Close()
			}
		}()
	}
	link, name, err := openLink(d.cfg)
	if err != nil {
		return err
	}
	if d.stack, err = stack.New(d.cfg.stackConfig(link)); err != nil {
		if d.cfg.Link == nil {
			link.Close()
		}
		return err
	}
	d.link, d.linkName = link, name
	d.log.Info("stack is up", "link", name, "mtu", link.MTU(), "addresses", d.cfg.Addresses)
	for _, s := range d.cfg.Services {
		if err := d.listen(s); err != nil {
			d.abandon()
			return fmt.Errorf("service %v: %w", s, err)
		}
	}
	d.control = newControlServer(&controller{stack: d.stack, status: d.Status, adopter: d.adopter, log: d.log})
	return nil
}

// abandon closes the stack and the services that listen on it so far.
func (d *Daemon) abandon() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, s := range d.services {
		s.server.shutdown(ctx)
	}
	d.stack.Close()
}

func (d *Daemon) listen(s Service) error {
	l, err := d.stack.Listen("tcp", fmt.Sprintf(":%d", s.Port))
	if err != nil {
		return err
	}
	limited := limit(l, d.cfg.MaxConns)
	srv, err := newServer(s, limited, d.log.With("service", s.String()))
	if err != nil {
		return err
	}
	d.services = append(d.services, &runningService{Service: s, server: srv, listener: limited})
	return nil
}

func (d *Daemon) serve(s *runningService) {
	if err := s.server.serve(); !ended(err) {
		d.fail(fmt.Errorf("service %v: %w", s.Service, err))
	}
}

// watchLink notices that the link has failed, if it is one that says so.
func (d *Daemon) watchLink() {
	l, ok := d.link.(interface {
		Done() <-chan struct{}
		Err() error
	})
	if !ok {
		return
	}
	<-l.Done()
	if err := l.Err(); err != nil {
		d.fail(fmt.Errorf("link %s: %w", d.linkName, err))
	}
}

// fail reports the first failure to Failed.
func (d *Daemon) fail(err error) {
	select {
	case d.failed <- err:
	default:
	}
}

// Failed delivers the error if a service or the link ends by itself. The
// daemon should then be closed.
func (d *Daemon) Failed() <-chan error { return d.failed }

// Stack is the daemon's stack. It stays the daemon's: it must not be closed.
func (d *Daemon) Stack() *stack.Stack { return d.stack }

// Status describes the daemon, as the control socket does.
func (d *Daemon) Status() Status {
	s := Status{
		PID:       os.Getpid(),
		Started:   d.started,
		Link:      d.linkName,
		MTU:       d.link.MTU(),
		Addresses: d.cfg.Addresses,
		Services:  []ServiceStatus{},
		Stats:     d.stack.Stats(),
	}
	for _, r := range d.services {
		s.Services = append(s.Services, ServiceStatus{
			Service:  r.Service.String(),
			Active:   r.listener.active.Load(),
			Accepted: r.listener.accepted.Load(),
		})
	}
	return s
}

// Close ends the daemon in order: nothing more is accepted; services finish
// what they do and close their connections; connections deliver what is left;
// then the control socket's file goes and the stack with its link. When ctx
// ends, what is still open is reset. Further calls do nothing.
func (d *Daemon) Close(ctx context.Context) {
	d.once.Do(func() {
		if err := d.drain(ctx); err != nil {
			d.log.Warn("ending with connections open", "conns", len(d.stack.Conns()), "error", err)
		}
		if d.socket != nil {
			d.socket.Close()
			d.control.Close()
		}
		d.stack.Close()
		d.running.Wait()
		d.log.Info("ended")
	})
}

// drain ends the services side by side, then waits for the connections.
func (d *Daemon) drain(ctx context.Context) error {
	errs := make(chan error, len(d.services))
	for _, s := range d.services {
		go func() { errs <- s.server.shutdown(ctx) }()
	}
	var err error
	for range d.services {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return ctx.Err()
	}
	return d.stack.Drain(ctx)
}
