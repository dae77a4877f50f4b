package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var someAck = Acked{
	At: time.Date(2026, 3, 3, 2, 59, 0, 123456789, time.UTC), Cluster: "east", Epoch: 7, Client: "orders-writer", Instance: "w1",
	Topic: "orders", Partition: 3, Offset: 41, Key: "w1/0", Seq: 12,
}

var someSeen = Seen{
	At: someAck.At, Cluster: "east", Epoch: 7, Client: "billing", Instance: "b1", Group: "billing",
	Topic: "orders", Partition: 3, Offset: 41, Key: "w1/0", Seq: 12,
}

var someCommit = Committed{
	At: someAck.At, Cluster: "east", Epoch: 7, Client: "billing", Instance: "b1", Group: "billing", Topic: "orders", Partition: 3, Offset: 42,
}

func TestWriterAndReader(t *testing.T) {
	dir := t.TempDir()
	w, err := OpenWriter(dir, "w1")
	require.NoError(t, err)
	later := someAck
	later.Seq, later.Offset = 13, 42
	require.NoError(t, w.Acked(someAck, later))
	require.NoError(t, w.Acked())
	require.NoError(t, w.Seen(someSeen))
	require.NoError(t, w.Committed(someCommit))
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	require.ErrorIs(t, w.Acked(someAck), os.ErrClosed)

	l, err := Read(dir)
	require.NoError(t, err)
	require.Equal(t, &Ledger{Acked: []Acked{someAck, later}, Seen: []Seen{someSeen}, Committed: []Committed{someCommit}}, l)
	info, err := os.Stat(filepath.Join(dir, "w1.acked.tsv"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestWriterIsSafeForConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	w, err := OpenWriter(dir, "w1")
	require.NoError(t, err)
	defer w.Close()
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for seq := range 50 {
				a := someAck
				a.Key, a.Seq = fmt.Sprintf("w1/%d", n), int64(seq+1)
				if err := w.Acked(a, a); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	l, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, l.Acked, 800)
	last, err := LastAcked(dir, "w1")
	require.NoError(t, err)
	require.Len(t, last, 8)
	for key, seq := range last {
		require.EqualValues(t, 50, seq, key)
	}
}

func TestLastAckedIsTheHighestWhateverTheOrder(t *testing.T) {
	dir := t.TempDir()
	last, err := LastAcked(dir, "w1")
	require.NoError(t, err)
	require.Empty(t, last)

	w, err := OpenWriter(dir, "w1")
	require.NoError(t, err)
	defer w.Close()
	for _, seq := range []int64{3, 9, 4} {
		a := someAck
		a.Seq = seq
		require.NoError(t, w.Acked(a))
	}
	last, err = LastAcked(dir, "w1")
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"w1/0": 9}, last)
	last, err = LastAcked(dir, "w10")
	require.NoError(t, err)
	require.Empty(t, last, "another instance's keys are its own")
}

// TestTornEnd cuts a ledger at every byte of its last line, as kill -9 may, and lets the instance live on.
func TestTornEnd(t *testing.T) {
	whole, err := appendLine(nil, someAck.At, someAck.Epoch, someAck.Partition, someAck.Offset, someAck.Seq, someAck.Key, someAck.Topic, someAck.Cluster, someAck.Client, someAck.Instance)
	require.NoError(t, err)
	for cut := range len(whole) {
		dir := t.TempDir()
		path := filepath.Join(dir, "w1.acked.tsv")
		require.NoError(t, os.WriteFile(path, append(append([]byte{}, whole...), whole[:cut]...), 0o600))
		l, err := Read(dir)
		require.NoError(t, err)
		require.Equal(t, []Acked{someAck}, l.Acked)

		w, err := OpenWriter(dir, "w1")
		require.NoError(t, err)
		next := someAck
		next.Seq++
		require.NoError(t, w.Acked(next))
		require.NoError(t, w.Close())
		l, err = Read(dir)
		require.NoError(t, err, "cut at %d", cut)
		require.Equal(t, []Acked{someAck, next}, l.Acked)
	}
}

func TestMalformedLines(t *testing.T) {
	good := "2026-03-03T02:59:00Z\t7\t3\t41\t12\tw1/0\torders\teast\twriter\tw1\n"
	for _, c := range []struct{ name, line, want string }{
		{"empty", "\n", "1 fields, not 10"},
		{"torn in the middle", good[:30] + "\n", "fields, not 10"},
		{"one field more", strings.TrimSuffix(good, "\n") + "\tx\n", "11 fields"},
		{"time", strings.Replace(good, "2026-03-03T", "yesterday ", 1), "time cannot be read"},
		{"epoch", strings.Replace(good, "\t7\t", "\tseven\t", 1), `"seven" is no epoch`},
		{"partition", strings.Replace(good, "\t3\t", "\t3000000000\t", 1), `"3000000000" is no partition`},
		{"offset", strings.Replace(good, "\t41\t", "\t\t", 1), `"" is no offset`},
		{"sequence", strings.Replace(good, "\t12\t", "\t12.5\t", 1), `"12.5" is no sequence`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "w1.acked.tsv")
			require.NoError(t, os.WriteFile(path, []byte(good+c.line+good), 0o600))
			_, err := Read(dir)
			require.ErrorContains(t, err, path+" line 2: ")
			require.ErrorContains(t, err, c.want)
			_, err = LastAcked(dir, "w1")
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestWriterRefusesWhatItCouldNotReadBack(t *testing.T) {
	for _, name := range []string{"", ".", "..", ".hidden", "a/b", "../w1"} {
		_, err := OpenWriter(t.TempDir(), name)
		require.ErrorContains(t, err, "cannot be an instance's name", "%q", name)
	}
	dir := t.TempDir()
	w, err := OpenWriter(dir, "w1")
	require.NoError(t, err)
	defer w.Close()
	for _, bad := range []string{"a\tb", "a\nb"} {
		a, s := someAck, someSeen
		a.Key, s.Group = bad, bad
		require.ErrorContains(t, w.Acked(someAck, a), "tab or a line break")
		require.ErrorContains(t, w.Seen(s), "tab or a line break")
	}
	require.NoError(t, w.Acked(someAck))
	l, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, l.Acked, 1, "a call that failed wrote nothing")
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		seq  int64
		size int
		want string
	}{{1, 5, "1 ..."}, {12, 0, "12 "}, {123, 4, "123 "}, {0, 2, "0 "}} {
		v := EncodeValue(c.seq, c.size)
		require.Equal(t, c.want, string(v))
		seq, err := DecodeValue(v)
		require.NoError(t, err)
		require.Equal(t, c.seq, seq)
	}
	for _, bad := range []string{"", " ", "12", "x 1", "1x ...", `{"canary":1}`, "99999999999999999999 "} {
		_, err := DecodeValue([]byte(bad))
		require.ErrorContains(t, err, "does not begin with a sequence", bad)
	}
}
