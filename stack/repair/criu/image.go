package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"
	"google.golang.org/protobuf/proto"

	"github.com/tcprepair/ustack/stack/repair"
)

// An image is the common magic, its own, and entries: four bytes of length, a
// protobuf message and, in some images, more. All of it is little-endian.
const (
	magicCommon    = 0x54564319
	magicTCPStream = 0x51465506
	magicInetSk    = 0x56443851
	magicFiles     = 0x56303138

	// maxEntry is more than the longest entry takes that is of use here.
	maxEntry = 1 << 20
	// piece is how many bytes of a queue are read at a time.
	piece = 64 << 10
)

// WriteStream writes the image of a connection's stream. The queues are written
// as they lie.
func WriteStream(w io.Writer, s *repair.Snapshot) error {
	if err := convertible(s); err != nil {
		return err
	}
	if s.State == repair.StateListen {
		return fmt.Errorf("criu: a listener has no stream: %w", repair.ErrState)
	}
	if err := writeImage(w, magicTCPStream, streamEntry(s)); err != nil {
		return err
	}
	if _, err := s.RecvQueue.WriteTo(w); err != nil {
		return err
	}
	_, err := s.SendQueue.WriteTo(w)
	return err
}

// WriteSockets writes an image of sockets, inetsk.img.
func WriteSockets(w io.Writer, conns ...Connection) error {
	var list []proto.Message
	for _, c := range conns {
		if err := convertible(c.Snapshot); err != nil {
			return err
		}
		list = append(list, socketEntry(c.Snapshot, c.Inode))
	}
	return writeImage(w, magicInetSk, list...)
}

func writeImage(w io.Writer, magic uint32, entries ...proto.Message) error {
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, magic)
	for _, e := range entries {
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		var err error
		if b, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(b, e); err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	}
	_, err := w.Write(b)
	return err
}

// Socket is a TCP socket of an image of sockets.
type Socket struct{ entry *sk_inet.InetSkEntry }

// Inode is the number in the name of the stream's image.
func (s Socket) Inode() uint32 { return s.entry.GetIno() }

// Listening reports whether it is a listener, which has no stream.
func (s Socket) Listening() bool { return s.entry.GetState() == uint32(repair.StateListen) }

// Snapshot puts the socket and its stream together; a listener has none, and
// stream is nil. The limits are those of the queues.
func (s Socket) Snapshot(stream io.Reader, l repair.Limits) (*repair.Snapshot, error) {
	if stream == nil {
		return snapshot(s.entry, nil)
	}
	st, err := readStreamImage(stream, l)
	if err != nil {
		return nil, err
	}
	return snapshot(s.entry, st)
}

// ReadSockets reads the TCP sockets of inetsk.img or files.img, in order.
func ReadSockets(r io.Reader) (list []Socket, err error) {
	magic, err := readMagic(r)
	if err != nil {
		return nil, err
	}
	if magic != magicInetSk && magic != magicFiles {
		return nil, invalid("this is not an image of sockets: its magic is %#x", magic)
	}
	for {
		sk := new(sk_inet.InetSkEntry)
		if magic == magicInetSk {
			err = readEntry(r, sk)
		} else {
			file := new(fdinfo.FileEntry)
			err = readEntry(r, file)
			sk = file.GetIsk()
		}
		switch {
		case err == io.EOF:
			return list, nil
		case err != nil:
			return nil, err
		case sk.GetType() == sockStream && sk.GetProto() == ipprotoTCP:
			list = append(list, Socket{sk})
		}
	}
}

// readStreamImage reads all of an image of a stream.
func readStreamImage(r io.Reader, l repair.Limits) (*stream, error) {
	magic, err := readMagic(r)
	if err != nil {
		return nil, err
	}
	if magic != magicTCPStream {
		return nil, invalid("this is not an image of a stream: its magic is %#x", magic)
	}
	st := &stream{entry: new(tcp_stream.TcpStreamEntry)}
	if err := readEntry(r, st.entry); err == io.EOF {
		return nil, cutShort(err)
	} else if err != nil {
		return nil, err
	}
	limit := uint32(repair.DefaultQueueLimit)
	if l.Queue > 0 {
		limit = uint32(min(l.Queue, repair.MaxQueue))
	}
	if st.recv, err = readQueue(r, st.entry.GetInqLen(), limit); err != nil {
		return nil, err
	}
	if st.out, err = readQueue(r, st.entry.GetOutqLen(), limit); err != nil {
		return nil, err
	}
	if n, err := io.ReadFull(r, make([]byte, 1)); n != 0 || err != io.EOF {
		return nil, invalid("there is more in the stream than its queues")
	}
	return st, nil
}

func readQueue(r io.Reader, n, limit uint32) (b repair.Bytes, err error) {
	if n > limit {
		return nil, invalid("a queue of %d bytes is larger than the limit of %d", n, limit)
	}
	for n > 0 {
		p := make([]byte, min(n, piece))
		if _, err := io.ReadFull(r, p); err != nil {
			return nil, cutShort(err)
		}
		b, n = append(b, p), n-uint32(len(p))
	}
	return b, nil
}

func readMagic(r io.Reader) (uint32, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, cutShort(err)
	}
	if binary.LittleEndian.Uint32(b[:]) != magicCommon {
		return 0, invalid("this is not a CRIU image")
	}
	return binary.LittleEndian.Uint32(b[4:]), nil
}

// readEntry reads one entry; io.EOF means that there is none.
func readEntry(r io.Reader, m proto.Message) error {
	var size [4]byte
	if n, err := io.ReadFull(r, size[:]); err != nil {
		if n == 0 && err == io.EOF {
			return io.EOF
		}
		return cutShort(err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > maxEntry {
		return invalid("an entry of %d bytes", n)
	}
	var b bytes.Buffer // grows with what is there, whatever n says
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return cutShort(err)
	}
	if err := proto.Unmarshal(b.Bytes(), m); err != nil {
		return invalid("an entry is malformed: %v", err)
	}
	return nil
}

// cutShort is the error for an image that ends early.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("criu: the image is cut short: %w", err)
	}
	return fmt.Errorf("criu: %w", err)
}
