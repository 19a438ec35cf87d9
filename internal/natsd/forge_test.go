package natsd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const forged = "renewatch.evt.web1.example_com.alert.cleared"

// shot is one message of an attacker, by the letter of the protocol.
type shot struct {
	subject, reply, body string
	header               [][2]string
}

func (s shot) protocol() string {
	to := s.subject
	if s.reply != "" {
		to += " " + s.reply
	}
	if s.header == nil {
		return fmt.Sprintf("PUB %s %d\r\n%s\r\n", to, len(s.body), s.body)
	}
	h := "NATS/1.0\r\n"
	for _, kv := range s.header {
		h += kv[0] + ": " + kv[1] + "\r\n"
	}
	h += "\r\n"
	return fmt.Sprintf("HPUB %s %d %d\r\n%s%s\r\n", to, len(h), len(h)+len(s.body), h, s.body)
}

// fire sends shots as a visitor and returns when the server has read them, with
// what it answered on the connection itself.
func fire(t *testing.T, s *Server, shots ...shot) string {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, `CONNECT {"verbose":false,"headers":true,"no_responders":false,"protocol":1}`+"\r\n")
	var heard strings.Builder
	for _, s := range shots {
		fmt.Fprint(c, s.protocol())
	}
	fmt.Fprint(c, "PING\r\n")
	for {
		line, err := r.ReadString('\n')
		heard.WriteString(line)
		if strings.HasPrefix(line, "PONG") {
			return heard.String()
		}
		if err != nil { // not everything was read
			t.Fatalf("the server hung up: %v\n%s", err, heard.String())
		}
	}
}

// apis is every request that visitors have a road for, and what else there is.
func apis() map[string]string {
	const s = "RENEWATCH"
	push := func(deliver string) string {
		b, _ := json.Marshal(map[string]any{"stream_name": s, "config": map[string]any{
			"name": "p", "deliver_subject": deliver, "headers_only": true, "ack_policy": "none", "deliver_policy": "all", "num_replicas": 1,
		}})
		return string(b)
	}
	return map[string]string{
		"INFO":                                              "",
		"STREAM.NAMES":                                      "",
		"STREAM.LIST":                                       "",
		"STREAM.INFO." + s:                                  "",
		"STREAM.MSG.GET." + s:                               `{"seq":1}`,
		"DIRECT.GET." + s:                                   `{"seq":1}`,
		"DIRECT.GET." + s + "." + event:                     "",
		"CONSUMER.NAMES." + s:                               "",
		"CONSUMER.LIST." + s:                                "",
		"CONSUMER.INFO." + s + ".pull":                      "",
		"CONSUMER.MSG.NEXT." + s + ".pull":                  `{"batch":5,"expires":1000000000,"idle_heartbeat":100000000}`,
		"CONSUMER.CREATE." + s:                              push(forged),
		"CONSUMER.CREATE." + s + ".p":                       push(forged),
		"CONSUMER.CREATE." + s + ".p.renewatch.evt.>":       push("$JS.API.STREAM.DELETE." + s),
		"CONSUMER.DURABLE.CREATE." + s + ".p":               strings.Replace(push("$JS.API.STREAM.PURGE."+s), `"name"`, `"durable_name"`, 1),
		"STREAM.CREATE.EVIL":                                `{"name":"EVIL","subjects":["evil"],"republish":{"src":">","dest":"` + forged + `"}}`,
		"STREAM.UPDATE." + s:                                `{"name":"` + s + `","subjects":[">"],"storage":"file"}`,
		"STREAM.PURGE." + s:                                 "",
		"STREAM.DELETE." + s:                                "",
		"STREAM.MSG.DELETE." + s:                            `{"seq":1}`,
		"STREAM.SNAPSHOT." + s:                              `{"deliver_subject":"` + forged + `"}`,
		"STREAM.RESTORE." + s:                               `{"config":{"name":"` + s + `"},"state":{}}`,
		"STREAM.LEADER.STEPDOWN." + s:                       "",
		"CONSUMER.PAUSE." + s + ".pull":                     `{"pause_until":"2999-01-01T00:00:00Z"}`,
		"CONSUMER.RESET." + s + ".pull":                     `{"seq":1}`,
		"CONSUMER.UNPIN." + s + ".pull":                     `{}`,
		"CONSUMER.MSG.NEXT." + s + ".>":                     `5`,
		"CONSUMER.MSG.NEXT." + s + ".*":                     `5`,
		"ACCOUNT.PURGE." + ownerAccount:                     "",
		"META.LEADER.STEPDOWN":                              "",
		"SERVER.REMOVE":                                     "",
		"CONSUMER.CREATE." + s + ".x.renewatch.evt.a.b.>":   push("_GATE.CONSUMER.CREATE." + s),
		"CONSUMER.CREATE." + s + ".y":                       push(SenderInbox + ".a.b"),
		"CONSUMER.CREATE." + s + ".z":                       push("_INBOX.*.>"),
		"CONSUMER.CREATE." + s + ".w":                       push("_INBOX.a _INBOX.b"),
		"CONSUMER.CREATE." + s + ".r":                       push("_R_.abc.def"),
		"CONSUMER.CREATE." + s + ".v":                       strings.Replace(push("_INBOX.a"), `"deliver_subject"`, `"Deliver_Subject":"`+forged+`","deliver_subject"`, 1),
		"CONSUMER.CREATE." + s + ".u":                       strings.Replace(push("_INBOX.a"), `"deliver_subject":`, `"deliver_subject":"_INBOX.q","DELIVER_SUBJECT":"`+forged+`","x":`, 1),
		"CONSUMER.CREATE." + s + ".sampled.renewatch.evt.>": strings.Replace(push(""), `"deliver_subject":""`, `"sample_freq":"100"`, 1),
	}
}

var replies = []string{
	"", forged, event, "renewatch.evt.>", "renewatch.evt.a.b.c.d",
	"_R_.Vk3Lq.a1b2c3", "_INBOX.x.y",
	"$JS.ACK." + forged, "$JS.ACK.RENEWATCH.pull.1.1.1.1.1",
	"$JS.renewatch.API.STREAM.MSG.GET.RENEWATCH", "$JS.API.DIRECT.GET.RENEWATCH",
	"$JS.renewatch.API.CONSUMER.CREATE.RENEWATCH", "_GATE.CONSUMER.CREATE.RENEWATCH", "_GATED.1",
	"$JS.FC.RENEWATCH.pull.x", SenderInbox + ".a.b",
}

var headers = [][][2]string{
	nil,
	{{"Nats-Msg-Id", "forged"}, {"Nats-Expected-Stream", "RENEWATCH"}},
	{{"Nats-Trace-Dest", forged}},
	{{"Nats-Trace-Dest", forged}, {"Nats-Trace-Only", "true"}},
	{{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
	{{"Nats-Request-Info", `{"acc":"RENEWATCH","svc":"RENEWATCH","user":"sender","kind":"Client"}`}},
	{{"Nats-Schedule", "@every 1s"}, {"Nats-Schedule-Target", forged}},
	{{"Nats-Incr", "1"}, {"Nats-Batch-Id", "b"}, {"Nats-Batch-Sequence", "1"}, {"Nats-Batch-Commit", "1"}},
	{{"Nats-Subject", forged}, {"Nats-Stream-Source", "RENEWATCH 1"}},
}

func subjects() map[string]string {
	all := map[string]string{
		forged: "forged", event: "forged", "renewatch.evt.>": "forged", "renewatch.evt.*.x.y.z": "forged",
		"$JS.ACK.RENEWATCH.pull.1.1.1.1.1":         "+ACK",
		"$JS.ACK.RENEWATCH.pull.1.1.1.1.2":         "+NXT 5",
		"$JS.ACK.RENEWATCH.pull.1.2.2.1.1":         "-NAK",
		"$JS.ACK.RENEWATCH.pull.1.3.3.1.1":         "+TERM " + forged,
		"$JS.ACK.RENEWATCH.renewatch.evt.a.b.c.d":  "+ACK",
		"$JS.FC.RENEWATCH.pull.x":                  "",
		"$JS.FC.RENEWATCH." + forged:               "",
		"_R_.Vk3Lq.a1b2c3":                         "forged",
		"_GATE.CONSUMER.CREATE.RENEWATCH":          "forged",
		"_GATED.1":                                 `{}`,
		SenderInbox + ".a.b":                       `{"stream":"RENEWATCH","seq":1}`,
		"$SYS.REQ.USER.INFO":                       "",
		"$SYS.REQ.ACCOUNT.RENEWATCH.CLAIMS.UPDATE": "",
		"$SYS.REQ.SERVER.PING":                     "",
		"$KV.x.y":                                  "forged",
		"$JS.renewatch.API.$KV.x":                  "forged",
		"$JS.EVENT.ADVISORY.API":                   forged,
	}
	for name, body := range apis() {
		all["$JS.renewatch.API."+name] = body
		all["$JS.API."+name] = body
	}
	return all
}

// fortress is a server with one true event, a visitor's pull consumer, and a
// check that nothing else got into the stream.
func fortress(t *testing.T) (*Server, func()) {
	s := start(t, Options{})
	publish(t, sender(t, s), event, "true")
	before := streamConfig(t, s)
	return s, func() {
		t.Helper()
		// Everything the server does with what it was sent is done in the order
		// of its queues; a road that is slow gets two more rounds through them.
		for range 2 {
			streamConfig(t, s)
		}
		if messages, last := state(t, s); messages != 1 || last != 1 {
			t.Errorf("the stream has %d messages and has stored %d, want one true event", messages, last)
		}
		if after := streamConfig(t, s); after != before {
			t.Errorf("the stream was changed:\n%s\n%s", before, after)
		}
		publish(t, sender(t, s), event, "true as well")
		if messages, last := state(t, s); messages != 2 || last != 2 {
			t.Errorf("after a true event the stream has %d messages and has stored %d", messages, last)
		}
	}
}

func streamConfig(t *testing.T, s *Server) string {
	t.Helper()
	conn, err := dialGate(s.srv, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	b, err := conn.request("$JS.API.STREAM.LIST", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Streams []struct {
			Config json.RawMessage `json:"config"`
		} `json:"streams"`
	}
	if err := json.Unmarshal(b, &list); err != nil || len(list.Streams) != 1 {
		t.Fatalf("streams: %v %s", err, b)
	}
	return string(list.Streams[0].Config)
}

func pullConsumer() shot {
	return shot{
		subject: "$JS.renewatch.API.CONSUMER.CREATE.RENEWATCH.pull", reply: "_INBOX.made",
		body: `{"stream_name":"RENEWATCH","config":{"name":"pull","ack_policy":"explicit","deliver_policy":"all","replay_policy":"instant","num_replicas":1}}`,
	}
}

func TestNothingAVisitorSendsIsStored(t *testing.T) {
	s, check := fortress(t)
	fire(t, s, pullConsumer())
	for subject, body := range subjects() {
		var shots []shot
		for _, reply := range replies {
			for _, h := range headers {
				shots = append(shots, shot{subject, reply, body, h})
			}
		}
		fire(t, s, shots...)
	}
	check()
}

// The server itself publishes an answer to the reply subject. It must do so on the
// visitors' side: they see it there, and the stream does not have it.
func TestAnswersWithAnEventSubjectStayWithTheVisitors(t *testing.T) {
	s, check := fortress(t)
	nc := visitor(t, s)
	made, err := nc.Request(pullConsumer().subject, []byte(pullConsumer().body), patience)
	if err != nil || bytes.Contains(made.Data, []byte(`"error"`)) {
		t.Fatalf("%v %s", err, made.Data)
	}
	sub, err := nc.SubscribeSync(forged)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"INFO": "", "STREAM.LIST": "", "STREAM.INFO.RENEWATCH": "",
		"STREAM.MSG.GET.RENEWATCH":         `{"seq":1}`,
		"DIRECT.GET.RENEWATCH":             `{"seq":1}`,
		"DIRECT.GET.RENEWATCH." + event:    "",
		"CONSUMER.INFO.RENEWATCH.pull":     "",
		"CONSUMER.MSG.NEXT.RENEWATCH.pull": "1",
		"CONSUMER.CREATE.RENEWATCH.p":      "not json",
	} {
		fire(t, s, shot{subject: "$JS.renewatch.API." + name, reply: forged, body: body})
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatalf("%s: no answer to be seen: %v", name, err)
		}
		if name == "CONSUMER.MSG.NEXT.RENEWATCH.pull" {
			// An acknowledgement that wants to be confirmed, on an event subject.
			if !strings.HasPrefix(m.Reply, "$JS.ACK.RENEWATCH.pull.") {
				t.Fatalf("reply %q", m.Reply)
			}
			fire(t, s, shot{subject: m.Reply, reply: forged, body: "+ACK"})
			if _, err := sub.NextMsg(patience); err != nil {
				t.Fatalf("no confirmation to be seen: %v", err)
			}
		}
	}
	check()
}

func TestConsumersDeliverNowhereButToInboxes(t *testing.T) {
	s, check := fortress(t)
	nc := visitor(t, s)
	ask := func(subject, body string) string {
		t.Helper()
		m, err := nc.Request("$JS.renewatch.API."+subject, []byte(body), patience)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		return string(m.Data)
	}
	for _, to := range []string{
		forged, event, "renewatch.evt.x", "renewatch.evt", "other.subject",
		"$JS.API.STREAM.DELETE.RENEWATCH", "$JS.API.STREAM.PURGE.RENEWATCH", "$JS.API.INFO",
		"$JS.renewatch.API.STREAM.DELETE.RENEWATCH", "$SYS.REQ.SERVER.PING",
		SenderInbox + ".a", "_GATE.x", "_GATED.1", "_R_.a.b", "$JS.ACK.RENEWATCH.pull.1",
		"_INBOX", "_INBOX.", "_INBOX..a", "_INBOX.>", "_INBOX.*", "_INBOX.a.>", "_INBOX.a b", "_INBOX.a\r\nPUB x 0\r\n", "_inbox.a",
		"_INBOX." + strings.Repeat("a", 200),
	} {
		config := map[string]any{"name": "p", "deliver_subject": to, "ack_policy": "none", "deliver_policy": "all", "headers_only": true}
		body, err := json.Marshal(map[string]any{"stream_name": "RENEWATCH", "config": config})
		if err != nil {
			t.Fatal(err)
		}
		for _, subject := range []string{"CONSUMER.CREATE.RENEWATCH", "CONSUMER.CREATE.RENEWATCH.p", "CONSUMER.CREATE.RENEWATCH.p.renewatch.evt.>"} {
			if got := ask(subject, string(body)); !strings.Contains(got, `"error"`) {
				t.Errorf("%s delivers to %q: %s", subject, to, got)
			}
		}
		config["durable_name"] = "p"
		body, err = json.Marshal(map[string]any{"stream_name": "RENEWATCH", "config": config})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask("CONSUMER.DURABLE.CREATE.RENEWATCH.p", string(body)); !strings.Contains(got, `"error"`) {
			t.Errorf("a durable one delivers to %q: %s", to, got)
		}
	}
	// The same request is granted where it is harmless, so it is the subject that
	// was refused.
	if got := ask("CONSUMER.CREATE.RENEWATCH.p", `{"stream_name":"RENEWATCH","config":{"name":"p","deliver_subject":"_INBOX.a.b","ack_policy":"none","deliver_policy":"all"}}`); strings.Contains(got, `"error"`) {
		t.Errorf("refused: %s", got)
	}
	for name, body := range map[string]string{
		"not JSON":            `x`,
		"nothing":             ``,
		"another stream":      `{"stream_name":"OTHER","config":{"name":"q"}}`,
		"another name":        `{"stream_name":"RENEWATCH","config":{"name":"other"}}`,
		"name and durable":    `{"stream_name":"RENEWATCH","config":{"name":"q","durable_name":"r"}}`,
		"priority":            `{"stream_name":"RENEWATCH","config":{"name":"q","priority_groups":["a"],"priority_policy":"overflow"}}`,
		"a pause":             `{"stream_name":"RENEWATCH","config":{"name":"q","pause_until":"2999-01-01T00:00:00Z"}}`,
		"sourcing":            `{"stream_name":"RENEWATCH","config":{"name":"q","deliver_subject":"_INBOX.a","direct":true}}`,
		"a long description":  `{"stream_name":"RENEWATCH","config":{"name":"q","description":"` + strings.Repeat("x", 3000) + `"}}`,
		"deep JSON":           strings.Repeat("[", 20000),
		"a megabyte of space": strings.Repeat(" ", 1<<20-1),
	} {
		if got := ask("CONSUMER.CREATE.RENEWATCH.q", body); !strings.Contains(got, `"error"`) || !strings.Contains(got, "renewatch: ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	check()
}

// The server alone grants a consumer that delivers into the sender's inbox or to
// its own API: the refusals above are the gate's.
func TestTheServerAloneWouldDeliverAnywhere(t *testing.T) {
	s := start(t, Options{})
	conn, err := dialGate(s.srv, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	for _, to := range []string{SenderInbox + ".a", "$JS.API.STREAM.DELETE.RENEWATCH"} {
		b, err := conn.request("$JS.API.CONSUMER.CREATE.RENEWATCH.p", []byte(`{"stream_name":"RENEWATCH","config":{"name":"p",`+
			`"deliver_subject":"`+to+`","ack_policy":"none","deliver_policy":"all","headers_only":true,"mem_storage":true}}`), patience)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(`"error"`)) {
			t.Errorf("refused: %s", b)
		}
	}
}

func TestPlainForgeryIsRefusedAndSaid(t *testing.T) {
	s, check := fortress(t)
	if heard := fire(t, s, shot{subject: forged, body: "forged"}); !strings.Contains(heard, "Permissions Violation") {
		t.Errorf("heard %q", heard)
	}
	for _, reply := range []string{"$JS.ACK.RENEWATCH.pull.1", "_R_.a.b"} {
		if heard := fire(t, s, shot{subject: "$JS.API.INFO", reply: reply}); !strings.Contains(heard, "-ERR") {
			t.Errorf("reply %s: heard %q", reply, heard)
		}
	}
	nc := visitor(t, s)
	if _, err := nc.Request("$JS.renewatch.API.STREAM.PURGE.RENEWATCH", nil, patience); err != nats.ErrNoResponders {
		t.Errorf("purge: %v", err)
	}
	check()
}

// Visitors must not read what the owner's account says inside, nor answer it.
func TestVisitorsHearNothingButEvents(t *testing.T) {
	s := start(t, Options{})
	nc := visitor(t, s)
	sub, err := nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	from := sender(t, s)
	for range 3 {
		publish(t, from, event, "true") // with a PubAck to the sender's inbox
	}
	state(t, s)
	for range 3 {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != event || m.Reply != "" && !strings.HasPrefix(m.Reply, SenderInbox) {
			t.Errorf("heard %s (reply %s)", m.Subject, m.Reply)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := sub.Pending(); n != 0 {
		t.Errorf("%d messages more", n)
	}
}

func TestRandomAttacks(t *testing.T) {
	s, check := fortress(t)
	fire(t, s, pullConsumer())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	all := subjects()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	for range 20 {
		var shots []shot
		for range 50 {
			x := shot{subject: pick(names), reply: pick(replies), body: all[pick(names)], header: headers[r.IntN(len(headers))]}
			switch r.IntN(4) {
			case 0:
				x.body = all[x.subject]
			case 1:
				x.reply = pick(names)
			case 2:
				x.subject = strings.Join(append(strings.Split(x.subject, ".")[:1], strings.Split(pick(names), ".")[1:]...), ".")
			}
			shots = append(shots, x)
		}
		fire(t, s, shots...)
	}
	check()
}

func FuzzGate(f *testing.F) {
	for name, body := range apis() {
		f.Add(gatePrefix+"."+name, []byte(body))
	}
	g := &gate{stream: "RENEWATCH"}
	f.Fuzz(func(t *testing.T, subject string, body []byte) {
		req, err := g.request(message{subject: subject, data: body})
		if err != nil {
			return
		}
		b, err := json.Marshal(req)
		if err != nil {
			t.Skip()
		}
		var out server.CreateConsumerRequest
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		c := out.Config
		if out.Stream != "RENEWATCH" || c.DeliverSubject != "" && !inbox(c.DeliverSubject) ||
			c.Name != "" && !validName(c.Name) || !c.MemoryStorage ||
			c.InactiveThreshold <= 0 || c.InactiveThreshold > maxInactive || len(c.Metadata) != 0 {
			t.Errorf("let through: %s", b)
		}
	})
}
