package netlab

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// superFrame builds an Ethernet frame with one TCP segment in it, its checksum
// left as a sender with offload leaves it, and the header that says so.
func superFrame(t testing.TB, v6 bool, payload []byte, segment uint16) (vnetHeader, []byte) {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	tcp := &layers.TCP{SrcPort: 80, DstPort: 4000, Seq: 1<<32 - 2000, Ack: 7, ACK: true, PSH: true, FIN: true, CWR: true, Window: 512,
		Options: []layers.TCPOption{
			{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
			{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)},
		}}
	h := vnetHeader{flags: vnetNeedsChecksum, gsoSize: segment, checksumAt: 16}
	var ip gopacket.SerializableLayer
	if v6 {
		ip6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: net.ParseIP("fd77::1"), DstIP: net.ParseIP("fd77::2")}
		ip, eth.EthernetType = ip6, layers.EthernetTypeIPv6
		h.checksumStart, h.gsoType = ethernetLen+40, vnetGSOTCPv6
		_ = tcp.SetNetworkLayerForChecksum(ip6)
	} else {
		ip4 := &layers.IPv4{Version: 4, TTL: 64, Id: 0xffff, Protocol: layers.IPProtocolTCP, Flags: layers.IPv4DontFragment, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 2}}
		ip, eth.EthernetType = ip4, layers.EthernetTypeIPv4
		h.checksumStart, h.gsoType = ethernetLen+20, vnetGSOTCPv4
		_ = tcp.SetNetworkLayerForChecksum(ip4)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, tcp, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	frame := buf.Bytes()
	// Leave the pseudo-header's sum in the field, as the kernel does.
	start := int(h.checksumStart)
	length := uint32(len(frame) - start)
	addresses := frame[ethernetLen+12 : ethernetLen+20]
	if v6 {
		addresses = frame[ethernetLen+8 : ethernetLen+40]
	}
	binary.BigEndian.PutUint16(frame[start+16:], fold(sum16(protocolTCP+length, addresses)))
	return h, frame
}

// wantValid checks lengths and checksums of a frame by computing them anew
// with gopacket, and returns its TCP layer.
func wantValid(t testing.TB, frame []byte) *layers.TCP {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil || p.Metadata().Truncated {
		t.Fatalf("not a good frame: %v (truncated %v)", p.ErrorLayer(), p.Metadata().Truncated)
	}
	tcp := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if err := tcp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	list := []gopacket.SerializableLayer{}
	for _, l := range p.Layers() {
		list = append(list, l.(gopacket.SerializableLayer))
	}
	if len(tcp.Payload) > 0 && p.ApplicationLayer() == nil {
		t.Fatal("no payload layer")
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), frame) {
		t.Fatalf("a length or checksum is wrong:\n got %x\nwant %x", frame, buf.Bytes())
	}
	return tcp
}

func TestSuperFrameIsCut(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, size := range []int{0, 1, 999, 1000, 1001, 5500, 60001} {
			data := payload(uint64(size), size)
			h, frame := superFrame(t, v6, data, 1000)
			var got []byte
			frames := 0
			err := completeFrames(h, frame, func(f []byte) {
				tcp := wantValid(t, f)
				if want := uint32(1<<32-2000) + uint32(len(got)); tcp.Seq != want {
					t.Errorf("v6 %v, size %d, frame %d: seq %d, want %d", v6, size, frames, tcp.Seq, want)
				}
				got = append(got, tcp.Payload...)
				last := len(got) == size
				if tcp.FIN != last || tcp.PSH != last || tcp.CWR != (frames == 0) {
					t.Errorf("v6 %v, size %d, frame %d: FIN %v, PSH %v, CWR %v", v6, size, frames, tcp.FIN, tcp.PSH, tcp.CWR)
				}
				if len(tcp.Payload) > 1000 {
					t.Errorf("a segment of %d bytes", len(tcp.Payload))
				}
				frames++
			})
			if want := max(1, (size+999)/1000); err != nil || frames != want || !bytes.Equal(got, data) {
				t.Errorf("v6 %v, size %d: %d frames, want %d; %v; same bytes %v", v6, size, frames, want, err, bytes.Equal(got, data))
			}
		}
	}
}

func TestChecksumIsFilledIn(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		h, frame := superFrame(t, v6, payload(1, 777), 0)
		h.gsoType = vnetGSONone
		n := 0
		if err := completeFrames(h, frame, func(f []byte) { wantValid(t, f); n++ }); err != nil || n != 1 {
			t.Errorf("v6 %v: %v, %d frames", v6, err, n)
		}
	}
}

func TestMismatchedOffloadHeader(t *testing.T) {
	h, frame := superFrame(t, false, payload(1, 5000), 1000)
	for name, change := range map[string]func(*vnetHeader){
		"no such type":             func(h *vnetHeader) { h.gsoType = 3 },
		"the other IP version":     func(h *vnetHeader) { h.gsoType = vnetGSOTCPv6 },
		"no segment size":          func(h *vnetHeader) { h.gsoSize = 0 },
		"TCP header inside IP's":   func(h *vnetHeader) { h.checksumStart = 20 },
		"TCP header elsewhere":     func(h *vnetHeader) { h.checksumStart += 4 },
		"TCP header past the end":  func(h *vnetHeader) { h.checksumStart = 60000 },
		"checksum past the end":    func(h *vnetHeader) { h.gsoType, h.checksumAt = vnetGSONone, 65000 },
		"checksum from beyond end": func(h *vnetHeader) { h.gsoType, h.checksumStart = vnetGSONone, 65000 },
	} {
		bad := h
		change(&bad)
		if err := completeFrames(bad, bytes.Clone(frame), func([]byte) {}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzCompleteFrames(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		h, frame := superFrame(f, v6, payload(1, 3000), 1000)
		f.Add(h.flags, h.gsoType, h.gsoSize, h.checksumStart, h.checksumAt, frame)
	}
	f.Fuzz(func(t *testing.T, flags, gsoType byte, size, start, at uint16, frame []byte) {
		h := vnetHeader{flags: flags, gsoType: gsoType, gsoSize: size, checksumStart: start, checksumAt: at}
		total := 0
		before := len(frame)
		err := completeFrames(h, frame, func(b []byte) { total += len(b) })
		if err == nil && total < before {
			t.Errorf("%d bytes came out of %d", total, before)
		}
	})
}
