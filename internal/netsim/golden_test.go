package netsim_test

import (
	"bufio"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

var (
	golden = flag.Bool("golden", false, "recompute every row of the golden tables, ours and gVisor's, rather than a sample of ours")
	update = flag.Bool("update", false, "with -golden: write the tables rather than compare them")
	only   = flag.Bool("ours", false, "with -golden: measure ours only, and take gVisor's figures from the tables, since its code is pinned")
)

// goldenDir holds the tables.
const goldenDir = "../../testdata/netsim"

// table is a CSV file of measurements. Its columns are a row's key, then each
// measure of ours beside that of gVisor's, then what the row says besides.
type table struct {
	file   string
	header []string
	digits int // after the decimal point of a measure
	rows   []row
}

type row struct {
	key     []string
	measure func(k kind) ([]float64, error)
	tail    []string
}

func tables() []table { return []table{goodputTable(), fairnessTable(), blackoutTable()} }

func goodputTable() table {
	t := table{
		file:   "goodput.csv",
		header: []string{"loss_pct", "rtt_ms", "buffer_bdp", "cc", "ours_mbps", "gvisor_mbps", "link_mbps"},
		digits: 3,
	}
	for _, c := range cells() {
		t.rows = append(t.rows, row{
			key:     c.key(),
			measure: func(k kind) ([]float64, error) { v, err := c.goodput(k); return []float64{v}, err },
			tail:    []string{number(c.mbps)},
		})
	}
	return t
}

// TestMain makes a worker of the program if it was started as one.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		if err := work(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestGolden compares the tables with what is measured now: with -golden all of
// them, or with -ours besides all of ours, else 24 cells of ours in goodput.csv.
// With -update it writes them.
func TestGolden(t *testing.T) {
	if !*golden {
		const sample = 24
		tab := goodputTable()
		want := readTable(t, tab)
		step := len(tab.rows) / sample
		for i := 0; i < len(tab.rows); i += step {
			if raceEnabled && i%(8*step) != 0 {
				continue // ten times slower: a few must do
			}
			t.Run(strings.Join(tab.rows[i].key, ","), func(t *testing.T) {
				t.Parallel()
				v, err := tab.rows[i].measure(ours)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := tab.format(v[0]), want[i][len(tab.rows[i].key)]; got != want {
					t.Errorf("%s Mbit/s, the table has %s; see -golden -update", got, want)
				}
			})
		}
		return
	}
	results := compute(t)
	for ti, tab := range tables() {
		var was [][]string
		if *only || !*update {
			was = readTable(t, tab)
		}
		records := make([][]string, len(tab.rows))
		for i, r := range tab.rows {
			records[i] = tab.record(r, results[job{ti, i, 0}], results[job{ti, i, 1}])
			if *only {
				tab.keepTheirs(records[i], was[i])
			}
		}
		if *update {
			writeTable(t, tab, records)
			continue
		}
		compare(t, tab, was, records)
	}
}

func (tab table) format(v float64) string { return strconv.FormatFloat(v, 'f', tab.digits, 64) }

// record is a line of the table. Figures of gVisor's that were not measured are
// left empty.
func (tab table) record(r row, ours, theirs []float64) []string {
	rec := append([]string(nil), r.key...)
	for i := range ours {
		their := ""
		if theirs != nil {
			their = tab.format(theirs[i])
		}
		rec = append(rec, tab.format(ours[i]), their)
	}
	return append(rec, r.tail...)
}

// keepTheirs copies gVisor's figures from an older line of the table.
func (tab table) keepTheirs(rec, was []string) {
	for j, name := range tab.header {
		if strings.HasPrefix(name, theirPrefix) {
			rec[j] = was[j]
		}
	}
}

// theirPrefix begins the name of each column of gVisor's.
const theirPrefix = "gvisor_"

// theirTolerance is how far gVisor's figures may be from the table's: its TCP
// runs on goroutines, and the scheduler is not ours to repeat.
const theirTolerance = 0.05

// compare fails for every row that is not what the table has.
func compare(t *testing.T, tab table, want, got [][]string) {
	for i := range got {
		for j, name := range tab.header {
			w, g := want[i][j], got[i][j]
			if strings.HasPrefix(name, theirPrefix) && near(w, g) || w == g {
				continue
			}
			t.Errorf("%s, %s: %s is %s, the table has %s", tab.file, strings.Join(tab.rows[i].key, ","), name, g, w)
		}
	}
}

func near(a, b string) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && max(x, y)-min(x, y) <= theirTolerance*max(x, y)
}

// readTable reads a table, whose rows must be those that are measured.
func readTable(t *testing.T, tab table) [][]string {
	t.Helper()
	f, err := os.Open(filepath.Join(goldenDir, tab.file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", tab.file, err)
	}
	if len(all) != len(tab.rows)+1 || strings.Join(all[0], ",") != strings.Join(tab.header, ",") {
		t.Fatalf("%s: %d rows under %q, want %d under %q", tab.file, len(all)-1, all[0], len(tab.rows), tab.header)
	}
	for i, r := range tab.rows {
		if key := strings.Join(all[i+1][:len(r.key)], ","); key != strings.Join(r.key, ",") {
			t.Fatalf("%s: row %d is %s, want %s", tab.file, i+1, key, strings.Join(r.key, ","))
		}
	}
	return all[1:]
}

func writeTable(t *testing.T, tab table, records [][]string) {
	t.Helper()
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.WriteAll(append([][]string{tab.header}, records...)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(goldenDir, tab.file), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A job is one measurement: of a row of a table, for ours (0) or gVisor's (1).
type job struct{ table, row, kind int }

// workerEnv is set in the environment of a process that measures for another.
// There is one for each processor, because those with gVisor's TCP have to
// confine themselves to one.
const workerEnv = "NETSIM_WORKER"

// compute measures everything, or what is ours.
func compute(t *testing.T) map[job][]float64 {
	t.Helper()
	jobs := make(chan job)
	go func() {
		defer close(jobs)
		for ti, tab := range tables() {
			for i := range tab.rows {
				jobs <- job{ti, i, 0}
				if !*only {
					jobs <- job{ti, i, 1}
				}
			}
		}
	}()
	var mu sync.Mutex
	results := map[job][]float64{}
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			err := delegate(jobs, func(j job, v []float64) {
				mu.Lock()
				defer mu.Unlock()
				results[j] = v
			})
			if err != nil {
				t.Error(err)
			}
			for range jobs { // whoever fails lets the others end
			}
		})
	}
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return results
}

// delegate has a process of its own do jobs.
func delegate(jobs <-chan job, done func(job, []float64)) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for j := range jobs {
		fmt.Fprintln(in, j.table, j.row, j.kind)
		if !lines.Scan() {
			break
		}
		var v []float64
		for _, f := range strings.Fields(lines.Text()) {
			x, err := strconv.ParseFloat(f, 64)
			if err != nil {
				return fmt.Errorf("worker: %q: %w", lines.Text(), err)
			}
			v = append(v, x)
		}
		done(j, v)
	}
	in.Close()
	return cmd.Wait()
}

// work does jobs that come one a line, and answers each with a line of figures.
func work(in io.Reader, out io.Writer) error {
	all := tables()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var j job
		if _, err := fmt.Sscan(lines.Text(), &j.table, &j.row, &j.kind); err != nil {
			return err
		}
		r := all[j.table].rows[j.row]
		k, runs := ours, 1
		if j.kind == 1 {
			k, runs = theirs, 3
		}
		v, err := median(runs, func() ([]float64, error) { return r.measure(k) })
		if err != nil {
			return fmt.Errorf("%s, %s: %s: %w", all[j.table].file, strings.Join(r.key, ","), k.name, err)
		}
		fmt.Fprintln(out, strings.Trim(fmt.Sprint(v), "[]"))
	}
	return nil
}
