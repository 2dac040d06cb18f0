package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
)

// Service is a service and the port it listens on.
type Service struct {
	Name string // one of ServiceNames
	Port uint16
	Dir  string // what "http" serves; empty for the others
}

// streams are the services that are a function of one connection.
var streams = map[string]handler{
	"echo":    echo,
	"discard": discard,
	"chargen": chargen,
	"sink":    sink,
}

const httpService = "http"

// ServiceNames lists the services, each with what it does.
var ServiceNames = []struct{ Name, Help string }{
	{"echo", "sends everything back (RFC 862)"},
	{"discard", "reads everything, says nothing (RFC 863)"},
	{"chargen", "sends printable characters without end (RFC 864)"},
	{"sink", "reads to the end, answers with the byte count and SHA-256"},
	{"http", "serves the files of a directory, read-only: http:80=DIR"},
}

// ParseService reads NAME:PORT, or http:PORT=DIR.
func ParseService(spec string) (Service, error) {
	name, rest, ok := strings.Cut(spec, ":")
	if !ok {
		return Service{}, fmt.Errorf("service %q: want NAME:PORT or http:PORT=DIR", spec)
	}
	port, dir, hasDir := strings.Cut(rest, "=")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Service{}, fmt.Errorf("service %q: port %q is not a number from 1 to 65535", spec, port)
	}
	s := Service{Name: name, Port: uint16(n), Dir: dir}
	if err := s.checkName(); err != nil {
		return Service{}, err
	}
	if hasDir && name != httpService {
		return Service{}, fmt.Errorf("service %q: only http takes a directory", spec)
	}
	if name == httpService && dir == "" {
		return Service{}, fmt.Errorf("service %q: which directory? http:PORT=DIR", spec)
	}
	return s, nil
}

// UnmarshalText implements encoding.TextUnmarshaler by ParseService.
func (s *Service) UnmarshalText(text []byte) (err error) {
	*s, err = ParseService(string(text))
	return err
}

// String is the form that ParseService reads.
func (s Service) String() string {
	if s.Dir != "" {
		return fmt.Sprintf("%s:%d=%s", s.Name, s.Port, s.Dir)
	}
	return fmt.Sprintf("%s:%d", s.Name, s.Port)
}

func (s Service) checkName() error {
	if _, ok := streams[s.Name]; ok || s.Name == httpService {
		return nil
	}
	var names []string
	for _, known := range ServiceNames {
		names = append(names, known.Name)
	}
	return fmt.Errorf("service %q: there is none of that name (%s)", s.Name, strings.Join(names, ", "))
}

// validate reports what keeps the service from being served.
func (s Service) validate() error {
	if err := s.checkName(); err != nil {
		return err
	}
	if s.Port == 0 {
		return fmt.Errorf("service %s: no port", s.Name)
	}
	if s.Name != httpService {
		return nil
	}
	root, err := openDir(s.Dir)
	if err != nil {
		return fmt.Errorf("service %v: %w", s, err)
	}
	return root.Close()
}

// server serves a service.
type server interface {
	// serve accepts connections until shutdown or until the listener fails.
	serve() error
	// adopt serves a connection that was not accepted here, from where it
	// stands.
	adopt(c duplex)
	// shutdown accepts no more and ends in order what is open; when ctx ends
	// it gives up on the rest.
	shutdown(ctx context.Context) error
}

// newServer makes the server of a validated service. It owns l.
func newServer(s Service, l net.Listener, log *slog.Logger) (server, error) {
	if s.Name == httpService {
		return newFileServer(s.Dir, l, log)
	}
	return newStreamServer(streams[s.Name], l, log), nil
}

// ended reports whether err is how a service ends when it was told to.
func ended(err error) bool { return err == nil || errors.Is(err, net.ErrClosed) }
