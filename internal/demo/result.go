package demo

import (
	"encoding/json"
	"fmt"
	"io"
)

// Result is the demo's last line.
type Result struct {
	// Demo is "ok" or "failed".
	Demo string `json:"demo"`
	// Link is LinkTAP or LinkMemory.
	Link string `json:"link"`
	// HTTPBytes, EchoBytes and UploadBytes are what was moved and verified;
	// the upload's are those of both families together.
	HTTPBytes   int64 `json:"http_bytes"`
	EchoBytes   int64 `json:"echo_bytes"`
	UploadBytes int64 `json:"upload_bytes"`
	// RcvNxtMoved is by how much the receive sequence moved while frozen, and
	// BytesAckedMoved by how much the peer's count of acknowledged bytes did.
	RcvNxtMoved     int64 `json:"rcv_nxt_moved"`
	BytesAckedMoved int64 `json:"bytes_acked_moved"`
	// Dropped is how many segments fell to the frozen connections.
	Dropped uint64 `json:"dropped_socket_repair"`
	// DigestMatch says that everything moved has its right SHA-256.
	DigestMatch bool `json:"digest_match"`
	// Reason is what went wrong, if something did.
	Reason string `json:"reason,omitempty"`
}

func (r *Result) settle(reason error) {
	r.Demo = "ok"
	if reason != nil {
		r.Demo, r.Reason = "failed", reason.Error()
	}
}

// outcome is a demo's last line.
type outcome interface {
	// settle says how it went: well, if there is no reason.
	settle(reason error)
}

// report writes the last line and returns ErrFailed if there is a reason to.
func report(w io.Writer, r outcome, reason error) error {
	r.settle(reason)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s\n", line); err != nil {
		return err
	}
	if reason != nil {
		return fmt.Errorf("%w: %w", ErrFailed, reason)
	}
	return nil
}
