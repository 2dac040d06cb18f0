//go:build linux

package main

import (
	"errors"
	"time"
)

// idle is what a connection costs that does nothing, before it was ever used
// and after.
func idle(name string, n int) func(*pair, time.Duration) ([]value, error) {
	return func(p *pair, _ time.Duration) (values []value, err error) {
		peers, err := p.crowd((n + peerSockets - 1) / peerSockets)
		defer func() {
			for _, c := range peers {
				err = errors.Join(err, c.stop())
			}
		}()
		if err != nil {
			return nil, err
		}
		m := &measurement{pair: p, peers: peers}
		m.tell("Mark", None{}, &None{})
		m.share("Hold", n)
		fresh, used := 0.0, 0.0
		m.tell("Held", n, &fresh)
		m.tellPeers("Ask", None{})
		m.tell("Exercise", None{}, &None{})
		m.tellPeers("Answered", None{})
		m.tell("Held", n, &used)
		m.tellPeers("Drop", None{})
		m.tell("Drop", None{}, &None{})
		return []value{{name, unitSize, fresh}, {name + "_used", unitSize, used}}, m.err
	}
}

// crowd starts further processes for the peer.
func (p *pair) crowd(n int) (peers []*child, err error) {
	for range n {
		c, err := startChild(p.ctx, p.near, rolePeer, nil)
		if err != nil {
			return peers, err
		}
		peers = append(peers, c)
	}
	return peers, nil
}

// measurement is a row of steps, which ends with the first that fails.
type measurement struct {
	pair  *pair
	peers []*child
	err   error
}

func (m *measurement) tell(method string, args, reply any) {
	if m.err == nil {
		m.err = m.pair.contestant.call(method, args, reply)
	}
}

// share tells each peer its share of n.
func (m *measurement) share(method string, n int) {
	for i, c := range m.peers {
		if m.err == nil {
			m.err = c.call(method, n*(i+1)/len(m.peers)-n*i/len(m.peers), &None{})
		}
	}
}

func (m *measurement) tellPeers(method string, args any) {
	for _, c := range m.peers {
		if m.err == nil {
			m.err = c.call(method, args, &None{})
		}
	}
}
