package natsd

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// Domain is the JetStream domain under which visitors read the stream.
const Domain = "renewatch"

const (
	ownerAccount   = "RENEWATCH"
	visitorAccount = "VISITORS"

	senderUser  = "sender"
	gateUser    = "gate"
	visitorUser = "visitor"

	// SenderInbox is the prefix under which the sender gets its answers. It is
	// not nats.go's default, because _INBOX is where visitors' push consumers
	// deliver to.
	SenderInbox = "_RENEWATCH"

	// gatePrefix is where requests for consumers arrive in the owner's account.
	gatePrefix = "_GATE"
)

// service is one road from the visitors' account into the owner's.
type service struct {
	from, to string
	many     bool // more than one answer to a request
}

// services is everything visitors may ask the owner's account for.
//
// An answer goes to the asker's reply subject in the visitors' account, never in
// the owner's: there the server replaces it by one of its own (_R_...). The one
// exception, replies that start with $JS.ACK., no client may send. What a consumer
// delivers to is named in the body of the request that makes it, where no import
// can see it; those requests go to the gate.
func services(stream string) []service {
	var list []service
	// The domain's name, and the plain one: an import of $JS.API.INFO also keeps
	// the server from answering "not enabled" for this account.
	for _, api := range []string{"$JS." + Domain + ".API.", "$JS.API."} {
		same := func(subject string, many bool) {
			list = append(list, service{from: api + subject, to: "$JS.API." + subject, many: many})
		}
		gate := func(subject string) {
			list = append(list, service{from: api + subject, to: gatePrefix + "." + subject})
		}
		same("INFO", false)
		same("STREAM.NAMES", false)
		same("STREAM.LIST", false)
		same("STREAM.INFO."+stream, false)
		same("STREAM.MSG.GET."+stream, false)
		same("DIRECT.GET."+stream, true)
		same("DIRECT.GET."+stream+".>", true)
		same("CONSUMER.NAMES."+stream, false)
		same("CONSUMER.LIST."+stream, false)
		same("CONSUMER.INFO."+stream+".*", false)
		same("CONSUMER.DELETE."+stream+".*", false)
		same("CONSUMER.MSG.NEXT."+stream+".*", true)
		gate("CONSUMER.CREATE." + stream)
		gate("CONSUMER.CREATE." + stream + ".>")
		gate("CONSUMER.DURABLE.CREATE." + stream + ".*")
	}
	return append(list,
		service{from: "$JS.ACK." + stream + ".>", to: "$JS.ACK." + stream + ".>", many: true},
		service{from: "$JS.FC." + stream + ".>", to: "$JS.FC." + stream + ".>"},
	)
}

// accounts makes the two accounts and their users. The passwords are known to
// this process only, and only connections inside it may use them.
func accounts(prefix, stream string) (all []*server.Account, users []*server.User, secret string, err error) {
	owner, visitors := server.NewAccount(ownerAccount), server.NewAccount(visitorAccount)
	events := prefix + ".evt.>"

	// What visitors read: events as they happen, and what their push consumers
	// deliver. Nothing else in the owner's account has to do with _INBOX.
	for _, subject := range []string{events, "_INBOX.>"} {
		if err := owner.AddStreamExport(subject, []*server.Account{visitors}); err != nil {
			return nil, nil, "", fmt.Errorf("export %s: %w", subject, err)
		}
		if err := visitors.AddStreamImport(owner, subject, ""); err != nil {
			return nil, nil, "", fmt.Errorf("import %s: %w", subject, err)
		}
	}
	for _, s := range services(stream) {
		answers := server.ServiceRespType(server.Singleton)
		if s.many {
			answers = server.Streamed
		}
		if err := owner.AddServiceExportWithResponse(s.to, answers, []*server.Account{visitors}); err != nil {
			return nil, nil, "", fmt.Errorf("export %s: %w", s.to, err)
		}
		if err := visitors.AddServiceImport(owner, s.from, s.to); err != nil {
			return nil, nil, "", fmt.Errorf("import %s: %w", s.from, err)
		}
	}

	secret = rand.Text() + rand.Text()
	inside := map[string]struct{}{"IN_PROCESS": {}}
	users = []*server.User{
		{
			Username: senderUser, Password: secret, Account: owner, AllowedConnectionTypes: inside,
			Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{events}},
				Subscribe: &server.SubjectPermission{Allow: []string{SenderInbox + ".>"}},
			},
		},
		{Username: gateUser, Password: secret, Account: owner, AllowedConnectionTypes: inside},
		{
			Username: visitorUser, Account: visitors,
			// A plain forgery for one's neighbours is refused; a reply subject
			// is not under this rule, so core subscribers are not safe from it.
			Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{events}},
			},
		},
	}
	return []*server.Account{owner, visitors}, users, secret, nil
}

// validName tells whether s can be the name of a stream, a consumer or a queue.
func validName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s,
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
