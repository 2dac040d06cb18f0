package criu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tcprepair/ustack/stack/repair"
)

// socketImages are the files that may hold the sockets, the first that is there
// being taken.
var socketImages = []string{"inetsk.img", "files.img"}

// StreamName is the file name of a stream's image.
func StreamName(inode uint32) string { return fmt.Sprintf("tcp-stream-%x.img", inode) }

// WriteDir writes connections as images into a directory: inetsk.img, and one
// tcp-stream image for each that is not a listener. It overwrites nothing, and
// after an error leaves nothing behind. It returns the names of the files.
func WriteDir(dir string, conns ...Connection) (names []string, err error) {
	defer func() {
		if err != nil {
			for _, name := range names {
				os.Remove(filepath.Join(dir, name))
			}
			names = nil
		}
	}()
	write := func(name string, to func(io.Writer) error) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		names = append(names, name)
		w := bufio.NewWriter(f)
		return errors.Join(to(w), w.Flush(), f.Close())
	}
	if err := write(socketImages[0], func(w io.Writer) error { return WriteSockets(w, conns...) }); err != nil {
		return names, err
	}
	for _, c := range conns {
		if c.Snapshot.State == repair.StateListen {
			continue
		}
		if err := write(StreamName(c.Inode), func(w io.Writer) error { return WriteStream(w, c.Snapshot) }); err != nil {
			return names, err
		}
	}
	return names, nil
}

// ReadDir reads the TCP connections of a directory of images: those sockets that
// have a stream there, and listeners.
func ReadDir(dir string, l repair.Limits) (list []Connection, err error) {
	sockets, err := readSocketsOf(dir)
	if err != nil {
		return nil, err
	}
	for _, sk := range sockets {
		s, err := readSnapshot(dir, sk, l)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was not connected, or is of another network namespace
		}
		if err != nil {
			return nil, err
		}
		list = append(list, Connection{sk.Inode(), s})
	}
	return list, nil
}

// ReadFile reads one connection by the file of its stream; its socket is in a
// file beside it.
func ReadFile(name string, l repair.Limits) (c Connection, err error) {
	dir, base := filepath.Split(name)
	digits, _ := strings.CutPrefix(strings.TrimSuffix(base, ".img"), "tcp-stream-")
	inode, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || base != StreamName(uint32(inode)) {
		return c, invalid("the name of a stream's image is tcp-stream-<inode>.img, not %q", base)
	}
	if dir == "" {
		dir = "."
	}
	sockets, err := readSocketsOf(dir)
	if err != nil {
		return c, err
	}
	for _, sk := range sockets {
		if sk.Inode() == uint32(inode) {
			s, err := readSnapshot(dir, sk, l)
			return Connection{sk.Inode(), s}, err
		}
	}
	return c, invalid("no socket beside %s has the inode %d", name, inode)
}

func readSocketsOf(dir string) ([]Socket, error) {
	var f *os.File
	var err error
	for _, name := range socketImages {
		if f, err = os.Open(filepath.Join(dir, name)); err == nil {
			defer f.Close()
			sockets, err := ReadSockets(bufio.NewReader(f))
			return sockets, ofFile(f, err)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("criu: %s has neither %s: %w", dir, strings.Join(socketImages, " nor "), fs.ErrNotExist)
}

func readSnapshot(dir string, sk Socket, l repair.Limits) (*repair.Snapshot, error) {
	if sk.Listening() {
		return sk.Snapshot(nil, l)
	}
	f, err := os.Open(filepath.Join(dir, StreamName(sk.Inode())))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := sk.Snapshot(bufio.NewReader(f), l)
	return s, ofFile(f, err)
}

// ofFile has an error name the file.
func ofFile(f *os.File, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", f.Name(), err)
	}
	return err
}
