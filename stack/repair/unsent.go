package repair

import "fmt"

// Sender is a Socket that sends, as sockets do, outside repair. Restoring by
// primitives needs it for data that has never been sent.
type Sender interface {
	Socket
	// Write takes what there is room for.
	Write([]byte) (int, error)
	// CloseWrite queues a FIN behind what was written.
	CloseWrite() error
}

// restorePrimitive restores with nothing but a Socket's primitives.
func restorePrimitive(f Factory, snap *Snapshot) (Socket, error) {
	fin := snap.State == StateFinWait1 && !snap.FINSent
	if snap.State != StateEstablished && !fin {
		return nil, fmt.Errorf("state %v: %w", snap.State, ErrState)
	}
	s, err := RestoreCore(f, snap)
	if err != nil {
		return nil, err
	}
	if snap.Unsent == 0 && !fin {
		return s, nil
	}
	sender, ok := s.(Sender)
	if !ok {
		err = fmt.Errorf("%d bytes are unsent, and the socket cannot send: %w", snap.Unsent, ErrState)
		s.Close()
		return nil, err
	}
	n := snap.SendQueue.Len()
	return &unfinished{Sender: sender, unsent: snap.SendQueue.Slice(n-snap.Unsent, n), fin: fin}, nil
}

// unfinished is a restored Socket that still has to write what was never sent.
// It must not do so before the thaw: what is written in repair counts as sent.
type unfinished struct {
	Sender
	unsent Bytes
	fin    bool
}

// Resume implements Resumer.
func (u *unfinished) Resume(m Mode) error {
	if err := Resume(u.Sender, m); err != nil {
		return err
	}
	for len(u.unsent) > 0 {
		n, err := u.Write(u.unsent[0])
		if u.unsent[0] = u.unsent[0][n:]; len(u.unsent[0]) == 0 {
			u.unsent = u.unsent[1:]
		}
		if err != nil {
			return fmt.Errorf("writing what was never sent: %w", err)
		}
	}
	if u.fin {
		u.fin = false
		return u.CloseWrite()
	}
	return nil
}

// Snapshot implements Snapshotter.
func (u *unfinished) Snapshot() (*Snapshot, error) {
	snap, err := read(u.Sender)
	if err != nil {
		return nil, err
	}
	snap.SendQueue = append(snap.SendQueue, u.unsent...)
	snap.Unsent += u.unsent.Len()
	if u.fin {
		snap.State, snap.FINQueued, snap.FINSent = StateFinWait1, true, false
	}
	return snap, nil
}
