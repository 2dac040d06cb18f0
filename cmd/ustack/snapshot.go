package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tcprepair/ustack/stack/repair"
	"github.com/tcprepair/ustack/stack/repair/criu"
)

// snapshotCmd works on snapshots in files.
type snapshotCmd struct {
	Show     snapshotShow     `cmd:"" help:"Describe snapshots."`
	JSON     snapshotJSON     `cmd:"" name:"json" help:"Print snapshots as JSON, with their data."`
	FromJSON snapshotFromJSON `cmd:"" name:"from-json" help:"Make snapshots of their JSON."`
	ToCRIU   snapshotToCRIU   `cmd:"" name:"to-criu" help:"Write snapshots as images of CRIU."`
	FromCRIU snapshotFromCRIU `cmd:"" name:"from-criu" help:"Make snapshots of images of CRIU."`
}

// Help implements kong.HelpProvider.
func (*snapshotCmd) Help() string {
	return `A file holds one snapshot, or several after each other. "-" is standard input.

Examples:

  ustack snapshot show conn.snap
  ustack snapshot json conn.snap | jq .window
  ustack snapshot to-criu conn.snap images
  ustack snapshot from-criu images/tcp-stream-1.img > conn.snap`
}

// source is a file of snapshots.
type source struct {
	File string `arg:"" help:"File of snapshots (\"-\": standard input)."`
}

// open opens the file.
func (c *source) open() (io.ReadCloser, error) {
	if c.File == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(c.File)
}

// each reads the snapshots one after the other.
func (c *source) each(do func(*repair.Snapshot) error) error {
	f, err := c.open()
	if err != nil {
		return err
	}
	defer f.Close()
	r := repair.NewReader(f, repair.Limits{})
	for n := 0; ; n++ {
		s, err := r.Next()
		if err == io.EOF && n > 0 {
			return nil
		}
		if err == io.EOF {
			err = errors.New("the file is empty")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		if err := do(s); err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
	}
}

type snapshotShow struct {
	source
	JSON bool `name:"json" help:"Print JSON, with the lengths of the queues and not their data."`
}

// Run describes the snapshots, and fails if one cannot be restored.
func (c *snapshotShow) Run(s streams) error {
	var impossible error
	err := c.each(func(snap *repair.Snapshot) error {
		if err := snap.Validate(); err != nil && impossible == nil {
			impossible = fmt.Errorf("%s: this cannot be restored: %w", c.File, err)
		}
		if c.JSON {
			return printSnapshotJSON(s.out, snap, false)
		}
		return describe(s.out, snap)
	})
	if err != nil {
		return err
	}
	return impossible
}

type snapshotJSON struct {
	source
	NoData bool `help:"Leave out the data of the queues. What is left cannot be read back."`
}

// Run prints the snapshots.
func (c *snapshotJSON) Run(s streams) error {
	return c.each(func(snap *repair.Snapshot) error { return printSnapshotJSON(s.out, snap, !c.NoData) })
}

func printSnapshotJSON(w io.Writer, snap *repair.Snapshot, queues bool) error {
	b, err := snap.JSON(queues)
	if err != nil {
		return err
	}
	return printJSON(w, json.RawMessage(b))
}

// writeList writes snapshots to a sink.
func (c *sink) writeList(ctx context.Context, stdout io.Writer, list []*repair.Snapshot) error {
	return c.write(ctx, stdout, func(out io.Writer) error {
		for _, snap := range list {
			if _, err := snap.WriteTo(out); err != nil {
				return err
			}
		}
		return nil
	})
}

type snapshotFromJSON struct {
	source
	sink
}

// Run reads JSON objects that follow each other.
func (c *snapshotFromJSON) Run(ctx context.Context, s streams) error {
	f, err := c.open()
	if err != nil {
		return err
	}
	defer f.Close()
	var list []*repair.Snapshot
	for d := json.NewDecoder(f); ; {
		snap := new(repair.Snapshot)
		err := d.Decode(snap)
		if err == io.EOF && len(list) > 0 {
			return c.writeList(ctx, s.out, list)
		}
		if err == io.EOF {
			err = errors.New("the file is empty")
		}
		if err == nil {
			err = snap.Validate()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		list = append(list, snap)
	}
}

type snapshotToCRIU struct {
	source
	Dir   string `arg:"" help:"Directory to write inetsk.img and tcp-stream-<inode>.img into; made if there is none."`
	Inode uint32 `default:"1" placeholder:"N" help:"Inode number of the first; the next have the next (${default})."`
}

// Validate is called by kong.
func (c *snapshotToCRIU) Validate() error {
	if c.Dir == "" {
		return errors.New("<dir>: which directory?")
	}
	return nil
}

// Run writes the images.
func (c *snapshotToCRIU) Run(s streams) error {
	var conns []criu.Connection
	err := c.each(func(snap *repair.Snapshot) error {
		conns = append(conns, criu.Connection{Inode: c.Inode + uint32(len(conns)), Snapshot: snap})
		return nil
	})
	if err != nil {
		return err
	}
	made := os.Mkdir(c.Dir, 0o700)
	names, err := criu.WriteDir(c.Dir, conns...)
	if err != nil {
		if made == nil {
			os.Remove(c.Dir)
		}
		return err
	}
	for _, name := range names {
		fmt.Fprintln(s.out, filepath.Join(c.Dir, name))
	}
	return nil
}

type snapshotFromCRIU struct {
	Image string `arg:"" name:"file" help:"A tcp-stream-<inode>.img, with inetsk.img or files.img beside it; or a directory, for all its connections."`
	sink
}

// Run reads the images.
func (c *snapshotFromCRIU) Run(ctx context.Context, s streams) error {
	info, err := os.Stat(c.Image)
	if err != nil {
		return err
	}
	var conns []criu.Connection
	if info.IsDir() {
		conns, err = criu.ReadDir(c.Image, repair.Limits{})
	} else {
		conns = make([]criu.Connection, 1)
		conns[0], err = criu.ReadFile(c.Image, repair.Limits{})
	}
	if err != nil {
		return err
	}
	if len(conns) == 0 {
		return fmt.Errorf("%s: there are no TCP connections", c.Image)
	}
	var list []*repair.Snapshot
	for _, conn := range conns {
		list = append(list, conn.Snapshot)
	}
	return c.writeList(ctx, s.out, list)
}
