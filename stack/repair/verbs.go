package repair

import (
	"errors"
	"fmt"
	"time"
)

// Checkpoint freezes a connection and reads it out. The connection stays
// frozen, so that what was read stays true: Resume lets it go on, Close ends it
// without a word once it lives elsewhere.
//
// After an error, which names the step that failed, the connection goes on as
// before; one that was frozen before stays frozen.
func Checkpoint(s Socket) (*Snapshot, error) {
	frozen, err := s.Repair()
	if err != nil {
		return nil, fmt.Errorf("checkpoint: asking for the mode: %w", err)
	}
	if err := freeze(s); err != nil {
		return nil, fmt.Errorf("checkpoint: freezing: %w", err)
	}
	snap, err := read(s)
	if err == nil {
		return snap, nil
	}
	err = fmt.Errorf("checkpoint: %w", err)
	if frozen {
		return nil, err
	}
	if now, ask := s.Repair(); now || ask != nil {
		if thaw := Resume(s, OffNoProbe); thaw != nil {
			err = errors.Join(err, fmt.Errorf("and the connection stays frozen: %w", thaw))
		}
	}
	return nil, err
}

// freeze freezes s. A listener cannot be, by Linux's rules: where it can be
// read out at all, Snapshot freezes it.
func freeze(s Socket) error {
	err := s.SetRepair(On)
	if err == nil {
		return nil
	}
	if _, ok := s.(Snapshotter); ok {
		if state, ask := s.State(); ask == nil && state == StateListen {
			return nil
		}
	}
	return err
}

// read reads a frozen connection out and checks what it got.
func read(s Socket) (snap *Snapshot, err error) {
	if r, ok := s.(Snapshotter); ok {
		snap, err = r.Snapshot()
	} else {
		snap, err = ReadCore(s)
	}
	if err != nil {
		return nil, err
	}
	if err := snap.Validate(); err != nil {
		return nil, fmt.Errorf("what was read cannot be: %w", err)
	}
	return snap, nil
}

// Resume ends a freeze: mode is Off, or OffNoProbe not to have the peer asked
// where it stands.
func Resume(s Socket, mode Mode) error {
	if mode == On || !mode.Valid() {
		return invalid("%v does not end a freeze", mode)
	}
	if r, ok := s.(Resumer); ok {
		return r.Resume(mode)
	}
	return s.SetRepair(mode)
}

// Restore sets a connection down. The Socket it returns is frozen: Resume lets
// it go. After an error nothing has changed.
//
// A Factory that is a Restorer does it in one step and in any state it can;
// with others the connection has to be ESTABLISHED, or on its way to
// FIN-WAIT-1 with the FIN not yet sent, because Linux's primitives reach no
// further.
func Restore(f Factory, snap *Snapshot) (Socket, error) {
	if err := snap.Validate(); err != nil {
		return nil, fmt.Errorf("restore: not a possible connection: %w", err)
	}
	if r, ok := f.(Restorer); ok {
		s, err := r.Restore(snap)
		if err != nil {
			return nil, fmt.Errorf("restore: %w", err)
		}
		return s, nil
	}
	s, err := restorePrimitive(f, snap)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return s, nil
}

// Move carries a connection from one place to another and lets it go on there.
// Where the target refuses it, it goes on where it was.
func Move(s Socket, to Factory) (Socket, error) {
	snap, err := Checkpoint(s)
	if err != nil {
		return nil, err
	}
	moved, err := Restore(to, snap)
	if err != nil {
		return nil, goOn(s, err)
	}
	if err := s.Close(); err != nil {
		// Two of it must not speak.
		return nil, goOn(s, errors.Join(fmt.Errorf("move: closing the origin: %w", err), moved.Close()))
	}
	if err := Resume(moved, Off); err != nil {
		return nil, errors.Join(fmt.Errorf("move: %w", err), moved.Close())
	}
	return moved, nil
}

// goOn thaws the origin of a failed move; the peer is asked, for what it sent
// meanwhile was dropped.
func goOn(s Socket, err error) error {
	if thaw := Resume(s, Off); thaw != nil {
		return errors.Join(err, fmt.Errorf("and the origin stays frozen: %w", thaw))
	}
	return err
}

// Reserve keeps the place of a connection that is to be restored, as the
// method of Reserver does. The error is errors.ErrUnsupported if the Factory
// cannot; a kernel, for one, needs no reservation where it has a rule of its
// firewall in place.
func Reserve(f Factory, flow Flow, hold int, lifetime time.Duration) (Reservation, error) {
	r, err := reserver(f, flow, lifetime)
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	if hold < 0 {
		return nil, fmt.Errorf("reserve: %w", invalid("cannot hold %d bytes", hold))
	}
	return r.Reserve(flow, hold, lifetime)
}

// Bury keeps the place of a connection that has gone, so that late segments
// draw no reset, as the method of Reserver does. The error is
// errors.ErrUnsupported if the Factory cannot.
func Bury(f Factory, flow Flow, lifetime time.Duration) (Reservation, error) {
	r, err := reserver(f, flow, lifetime)
	if err != nil {
		return nil, fmt.Errorf("bury: %w", err)
	}
	return r.Bury(flow, lifetime)
}

func reserver(f Factory, flow Flow, lifetime time.Duration) (Reserver, error) {
	if err := flow.Validate(); err != nil {
		return nil, err
	}
	if lifetime <= 0 {
		return nil, invalid("a lifetime of %v", lifetime)
	}
	r, ok := f.(Reserver)
	if !ok {
		return nil, fmt.Errorf("places cannot be kept here: %w", errors.ErrUnsupported)
	}
	return r, nil
}
