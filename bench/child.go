//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"

	"github.com/tcprepair/ustack/internal/netlab"
)

// roleVariable in the environment makes the program one of the processes that a
// comparison consists of. They are told what to do by RPC over standard input
// and output.
const roleVariable = "USTACK_BENCH_ROLE"

// congestionVariable names the congestion control of the kernel's sockets; unset:
// the machine's default.
const congestionVariable = "USTACK_BENCH_CONGESTION"

// role is what a process is for: the peer, or the name of the stack to serve on.
type role string

const rolePeer role = "peer"

// tapDescriptor is the TAP's in a process that serves on one.
const tapDescriptor = 3

func childRole() (role, bool) {
	r, ok := os.LookupEnv(roleVariable)
	return role(r), ok
}

// run serves until standard input ends.
func (r role) run() error {
	server := rpc.NewServer()
	var service any = &Peer{}
	if r != rolePeer {
		c, err := newContestant(string(r))
		if err != nil {
			return err
		}
		service = c
	}
	if err := server.RegisterName("Child", service); err != nil {
		return err
	}
	server.ServeConn(stdio{os.Stdin, os.Stdout})
	return nil
}

// stdio is two one-way streams as one.
type stdio struct {
	io.ReadCloser
	w io.WriteCloser
}

func (s stdio) Write(p []byte) (int, error) { return s.w.Write(p) }

func (s stdio) Close() error { return errors.Join(s.ReadCloser.Close(), s.w.Close()) }

// child is another process of the comparison.
type child struct {
	role   role
	client *rpc.Client
	cmd    *netlab.Cmd
}

// startChild starts this program again, in a namespace, with another role and
// with the file (nil: none) as descriptor 3.
func startChild(ctx context.Context, ns *netlab.Namespace, r role, tap *os.File) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := ns.Command(ctx, self)
	cmd.Env = append(os.Environ(), roleVariable+"="+string(r))
	cmd.Stderr = os.Stderr
	if tap != nil {
		cmd.ExtraFiles = []*os.File{tap}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", r, err)
	}
	return &child{role: r, client: rpc.NewClient(stdio{out, in}), cmd: cmd}, nil
}

// call calls a method of the child's service.
func (c *child) call(method string, args, reply any) error {
	if err := c.client.Call("Child."+method, args, reply); err != nil {
		return fmt.Errorf("%s: %s: %w", c.role, method, err)
	}
	return nil
}

// stop ends the child and waits for it.
func (c *child) stop() error {
	err := c.client.Close()
	return errors.Join(err, c.cmd.Wait())
}
