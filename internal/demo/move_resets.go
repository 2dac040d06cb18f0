package demo

import (
	"fmt"

	"github.com/google/gopacket/layers"

	"github.com/tcprepair/ustack/internal/netlab"
)

// way is one direction of a connection, as the capture sees it.
type way struct {
	out      bool // from the peer
	ipv6     bool
	from, to layers.TCPPort
}

func wayOf(c netlab.Captured, tcp *layers.TCP) way {
	return way{c.Out, c.Packet().Layer(layers.LayerTypeIPv6) != nil, tcp.SrcPort, tcp.DstPort}
}

// resets is how many RSTs were on the wire, whoever sent them.
func (c *country) resets() int { return len(c.strayResets()) + c.capture.Missed() }

// strayResets returns the RSTs that cut a connection off. One that answers the
// acknowledgement of its sender's own FIN does not: where a FIN was sent twice,
// and TCPs under load do so, the second acknowledgement of it may find that the
// connection has ended in order.
func (c *country) strayResets() (strays []string) {
	ends := make(map[way]uint32) // where a FIN says that it ends
	for _, p := range c.capture.Packets() {
		tcp := p.TCP()
		if tcp == nil {
			continue
		}
		s := wayOf(p, tcp)
		if tcp.FIN {
			ends[s] = tcp.Seq + uint32(p.PayloadLen()) + 1
		}
		if !tcp.RST {
			continue
		}
		if end, ok := ends[s]; ok && !tcp.ACK && tcp.Seq == end {
			continue
		}
		who := "a host"
		if p.Out {
			who = "the peer"
		}
		strays = append(strays, fmt.Sprintf("%v from %s: seq %d, ack %d (%t)", p.Time.Format("05.000000"), who, tcp.Seq, tcp.Ack, tcp.ACK))
	}
	return strays
}
