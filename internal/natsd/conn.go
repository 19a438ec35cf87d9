package natsd

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// message is one message from the server.
type message struct {
	subject, reply string
	data           []byte
}

// conn is the gate's own connection to the server in this process. It speaks the
// little of the NATS protocol that the gate needs.
type conn struct {
	net      net.Conn
	inbox    string       // prefix of the subjects of answers, this connection's alone
	requests chan message // from visitors; closed when the connection ends
	answers  chan message // from the server's API

	mu  sync.Mutex // guards writing
	seq uint64
}

const (
	requestsSID = "1"
	answersSID  = "2"
	gateInbox   = "_GATED"

	maxProtocolLine = 8 << 10
	maxRequest      = 1 << 20
	// requestBacklog is how many requests of visitors wait at most; more are not
	// answered.
	requestBacklog = 64
)

func dialGate(s *server.Server, password string) (*conn, error) {
	nc, err := s.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &conn{net: nc, inbox: gateInbox + "." + rand.Text(), requests: make(chan message, requestBacklog), answers: make(chan message, 1)}
	r := bufio.NewReaderSize(nc, maxProtocolLine)
	nc.SetDeadline(time.Now().Add(apiTimeout))
	if err := c.hello(r, password); err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to the embedded server: %w", err)
	}
	nc.SetDeadline(time.Time{})
	go c.receive(r)
	return c, nil
}

func (c *conn) hello(r *bufio.Reader, password string) error {
	if line, err := readLine(r); err != nil || !strings.HasPrefix(line, "INFO ") {
		return errors.Join(errors.New("no greeting"), err)
	}
	login, err := json.Marshal(map[string]any{
		"verbose": false, "pedantic": false, "lang": "go", "version": server.VERSION, "protocol": 1,
		"name": "renewatch gate", "user": gateUser, "pass": password,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.net, "CONNECT %s\r\nSUB %s.> %s\r\nSUB %s.* %s\r\nPING\r\n",
		login, gatePrefix, requestsSID, c.inbox, answersSID)
	if err != nil {
		return err
	}
	for {
		line, err := readLine(r)
		switch {
		case err != nil:
			return err
		case line == "PONG":
			return nil
		case line == "PING":
			if err := c.write("PONG\r\n"); err != nil {
				return err
			}
		case strings.HasPrefix(line, "-ERR"):
			return errors.New(line)
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// receive takes messages until the connection ends.
func (c *conn) receive(r *bufio.Reader) {
	defer close(c.answers)
	defer close(c.requests)
	defer c.net.Close()
	for {
		line, err := readLine(r)
		if err != nil {
			return
		}
		if line == "PING" {
			if c.write("PONG\r\n") != nil {
				return
			}
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != "MSG" {
			continue
		}
		m, sid := message{subject: fields[1]}, fields[2]
		if len(fields) == 5 {
			m.reply = fields[3]
		}
		size, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil || size < 0 || size > maxRequest {
			return
		}
		m.data = make([]byte, size)
		if _, err := io.ReadFull(r, m.data); err != nil {
			return
		}
		if _, err := r.Discard(2); err != nil {
			return
		}
		if sid == answersSID {
			select {
			case <-c.answers: // one that nobody waited for any more
			default:
			}
			c.answers <- m
			continue
		}
		select {
		case c.requests <- m:
		default: // too many at once
		}
	}
}

func (c *conn) write(s string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.net.SetWriteDeadline(time.Now().Add(apiTimeout))
	_, err := io.WriteString(c.net, s)
	return err
}

func (c *conn) publish(subject, reply string, data []byte) error {
	if reply != "" {
		subject += " " + reply
	}
	return c.write(fmt.Sprintf("PUB %s %d\r\n%s\r\n", subject, len(data), data))
}

// request asks the server's API. It is not for concurrent use.
func (c *conn) request(subject string, data []byte, timeout time.Duration) ([]byte, error) {
	c.seq++
	reply := c.inbox + "." + strconv.FormatUint(c.seq, 10)
	if err := c.publish(subject, reply, data); err != nil {
		return nil, err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case m, ok := <-c.answers:
			if !ok {
				return nil, errors.New("the server has stopped")
			}
			if m.subject == reply {
				return m.data, nil
			}
		case <-timer.C:
			return nil, errors.New("the server did not answer in time")
		}
	}
}

func (c *conn) close() { c.net.Close() }
