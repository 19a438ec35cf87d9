package watch_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/watch"
)

// A renewal by certbot, as a Watcher sees it.
func ExampleWatcher() {
	dir, err := os.MkdirTemp("", "letsencrypt-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ca := certtest.NewCA(certtest.CAOptions{})
	issue := func() *certtest.Leaf { return ca.Issue(certtest.LeafOptions{Names: []string{"www.example.org"}}) }
	lineage, err := certtest.NewLineage(dir, "www.example.org", issue())
	if err != nil {
		log.Fatal(err)
	}

	w := watch.New(watch.Options{Settle: 200 * time.Millisecond})
	w.Set([]watch.Source{{Cert: filepath.Join(dir, "live/*/fullchain.pem")}})
	ctx, cancel := context.WithCancel(context.Background())
	seen := make(chan watch.Observation)
	done := make(chan error)
	go func() { done <- w.Run(ctx, seen) }()

	o := <-seen
	fmt.Println(o.Kind, o.Name, o.Pair.Key, len(o.History))
	if err := lineage.Renew(issue()); err != nil {
		log.Fatal(err)
	}
	o = <-seen
	fmt.Println(o.Kind, o.Name, o.Pair.Key, len(o.History))

	cancel()
	fmt.Println(<-done)
	// Output:
	// loaded www.example.org matches 0
	// changed www.example.org matches 1
	// <nil>
}

func ExampleLoad() {
	_, fault := watch.Load("/etc/letsencrypt/live/no.such.example/fullchain.pem", "")
	fmt.Println(fault.Code)
	// Output: missing
}

func ExampleNameOf() {
	fmt.Println(watch.NameOf("/etc/letsencrypt/live/www.example.org/fullchain.pem"))
	fmt.Println(watch.NameOf("/etc/ssl/mail.example.org.crt"))
	// Output:
	// www.example.org
	// mail.example.org
}
