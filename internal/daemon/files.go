package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// fileServer serves a directory over HTTP, read-only.
type fileServer struct {
	root     *os.Root
	http     http.Server
	listener net.Listener
	patience time.Duration // with peers that take nothing
}

// openDir opens a directory that can be listed. No path below it leads out,
// not by "..", nor by a symbolic link.
func openDir(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if _, err := fs.ReadDir(root.FS(), "."); err != nil {
		root.Close()
		return nil, fmt.Errorf("directory %s: %w", dir, err)
	}
	return root, nil
}

// readerPatience is how long a peer may take nothing of a file before its place
// goes to another. The time a connection is frozen does not count, as it would
// against a deadline of each Write.
const readerPatience = 2 * time.Minute

// newFileServer owns l, also when it fails.
func newFileServer(dir string, l net.Listener, log *slog.Logger) (*fileServer, error) {
	root, err := openDir(dir)
	if err != nil {
		l.Close()
		return nil, err
	}
	s := &fileServer{root: root, listener: l, patience: readerPatience}
	s.http = http.Server{
		Handler:           readOnly(http.FileServerFS(plainFiles{root})),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			limitPatience(c, s.patience)
			return ctx
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// readOnly lets through the methods that change nothing.
func readOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *fileServer) serve() error {
	if err := s.http.Serve(s.listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func (s *fileServer) shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	s.http.Close()
	s.root.Close()
	return err
}

// plainFiles is a directory's regular files and directories. Opening anything
// else, a FIFO for one, might block or have effects.
type plainFiles struct{ root *os.Root }

// Open implements fs.FS.
func (p plainFiles) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	f, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
