package tcp

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// likeness is what an endpoint begins with, for many to share until one of them
// changes something: new ones the stack's defaults, and restored ones mostly
// what the last of them had. It is not written to.
type likeness struct {
	settings settings
	options  tcpip.SocketOptions
	// linger and device are options too, for comparison.
	linger tcpip.LingerOption
	device int32
	of     *optionValues // the defaults that are in the rest of options
}

// likenesses has the latest.
type likenesses struct {
	fresh    atomic.Pointer[likeness]
	restored atomic.Pointer[likeness]
}

// fresh is what a new endpoint begins with.
func (p *protocol) fresh() *likeness {
	o := p.options.snapshot()
	if l := p.like.fresh.Load(); l != nil && l.of == o {
		return l
	}
	l := &likeness{settings: defaultSettings(o), of: o}
	l.init(p)
	p.like.fresh.Store(l)
	return l
}

// restored is what an endpoint has that was restored with these.
func (p *protocol) restored(want *settings, linger tcpip.LingerOption, device int32) *likeness {
	o := p.options.snapshot()
	if l := p.like.restored.Load(); l != nil && l.of == o && l.linger == linger && l.device == device && l.settings == *want {
		return l
	}
	l := &likeness{settings: *want, linger: linger, device: device, of: o}
	l.init(p)
	p.like.restored.Store(l)
	return l
}

// init sets the options from the rest.
func (l *likeness) init(p *protocol) {
	user, ops := &l.settings.user, &l.options
	ops.InitHandler(&nicChecker{stack: p.stack}, p.stack, GetTCPSendBufferLimits, GetTCPReceiveBufferLimits)
	ops.SetMulticastLoop(true)
	ops.SetQuickAck(true)
	ops.SetKeepAlive(user.Keepalive.On)
	ops.SetDelayOption(!user.NoDelay)
	ops.SetCorkOption(user.Cork)
	ops.SetLinger(l.linger)
	ops.SetBindToDevice(l.device)
	ops.SetSendBufferSize(int64(l.of.sndBuf.Default), false)
	ops.SetReceiveBufferSize(int64(l.of.rcvBuf.Default), false)
}

// resemble gives an endpoint that nobody else has what it begins with.
func (e *Endpoint) resemble(l *likeness) {
	e.settings, e.settingsShared = &l.settings, true
	e.ops.values.Store(&l.options)
}
