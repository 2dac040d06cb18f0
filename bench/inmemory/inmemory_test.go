package inmemory

import "testing"

func BenchmarkAll(b *testing.B) {
	for _, m := range All {
		b.Run(m.Name, m.Run)
	}
}
