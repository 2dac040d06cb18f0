package netlab

import (
	"fmt"

	"github.com/google/gopacket/layers"
)

// way is one direction of a connection, as a capture sees it.
type way struct {
	out, ipv6 bool
	from, to  layers.TCPPort
}

func wayOf(c Captured, tcp *layers.TCP) way {
	return way{c.Out, c.Packet().Layer(layers.LayerTypeIPv6) != nil, tcp.SrcPort, tcp.DstPort}
}

// back is the other direction of the same connection.
func (w way) back() way { return way{!w.out, w.ipv6, w.to, w.from} }

// StrayResets tells of the recorded RSTs that cut a connection off. One that
// answers a second acknowledgement of its sender's own FIN does not: the first
// has ended the connection in order, and TCPs under load do send a FIN, or what
// is before it, twice. A capture of ends only takes the first for granted.
func (c *Capture) StrayResets() []string { return strayResets(c.Packets(), c.endsOnly) }

func strayResets(packets []Captured, endsOnly bool) (strays []string) {
	ends := make(map[way]uint32) // where a FIN says that it ends
	heard := make(map[way]int)   // how often that was acknowledged
	for _, p := range packets {
		tcp := p.TCP()
		if tcp == nil {
			continue
		}
		w := wayOf(p, tcp)
		if tcp.FIN {
			ends[w] = tcp.Seq + uint32(p.PayloadLen()) + 1
		}
		if end, ok := ends[w.back()]; ok && tcp.ACK && tcp.Ack == end {
			heard[w.back()]++
		}
		if !tcp.RST {
			continue
		}
		if end, ok := ends[w]; ok && !tcp.ACK && tcp.Seq == end && (endsOnly || heard[w] > 1) {
			continue
		}
		strays = append(strays, fmt.Sprintf("%v out %t, port %d: seq %d, ack %d (%t)",
			p.Time.Format("05.000000"), p.Out, tcp.SrcPort, tcp.Seq, tcp.Ack, tcp.ACK))
	}
	return strays
}
