package apache_test

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/apache"
	"switchback/lab/tree"
)

// echo is a controller that says what it hears.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				line, err := bufio.NewReader(conn).ReadString('\n')
				for ; err == nil; line, err = bufio.NewReader(conn).ReadString('\n') {
					_, _ = conn.Write([]byte(line))
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// heard says whether a line comes back.
func heard(conn net.Conn) bool {
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && line == "hello\n"
}

func TestWires(t *testing.T) {
	first, third := echo(t), echo(t)
	var wires apache.Wires
	t.Cleanup(func() { require.NoError(t, wires.Close()) })
	broker := tree.Spec{Name: "kafka-east-2", Env: []string{"KAFKA_NODE_ID=2", "KAFKA_VOTERS=1@" + first + ",2@127.0.0.1:9093,3@" + third}}
	require.NoError(t, wires.Lay(&broker))
	voters := strings.Split(strings.TrimPrefix(broker.Env[1], "KAFKA_VOTERS="), ",")
	require.Equal(t, "2@127.0.0.1:9093", voters[1], "the way to itself is its own")
	require.NotContains(t, broker.Env[1], first)

	dial := func(voter string) net.Conn {
		_, address, _ := strings.Cut(voter, "@")
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	open := dial(voters[0])
	require.True(t, heard(open))
	require.True(t, heard(dial(voters[2])))

	mend := wires.Cut("kafka-east-2")
	require.False(t, heard(open), "what was open is closed")
	require.False(t, heard(dial(voters[2])))
	mend()
	require.True(t, heard(dial(voters[0])))

	require.ErrorContains(t, wires.Lay(&tree.Spec{Name: "worker"}), "it is no broker")
}
