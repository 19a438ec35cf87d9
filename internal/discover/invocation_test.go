package discover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestRecognise(t *testing.T) {
	for _, c := range []struct {
		command string // words between blanks, or | where there is a |
		want    string
	}{
		{"nginx -s reload", "nginx"},
		{"/usr/sbin/nginx -s reload -c /a.conf", "nginx /a.conf"},
		{"nginx -tqc/a.conf", "nginx /a.conf"},
		{"nginx -p /p -tc a.conf -g|daemon on; -c x|-e /e", "nginx a.conf prefix /p"},
		{"openresty -p /p/ -s reload", "nginx prefix /p/"},
		{"sudo -n -u root nginx -c /a.conf -t", "nginx /a.conf"},
		{"timeout 30 env A=b nice -n 5 nginx -c /a.conf", "nginx /a.conf"},
		{"apachectl -k graceful", "apache"},
		{"apache2ctl -f /a.conf -DX -D Y graceful", "apache /a.conf define X define Y"},
		{"/usr/sbin/httpd -d/root -f conf/b.conf -k graceful -C|Define x", "apache conf/b.conf prefix /root"},
		{"haproxy -c -q -f /a.cfg -f /d -- /b.cfg", "haproxy /a.cfg /d /b.cfg"},
		{"haproxy -Ws -p /f -C /w -f a.cfg -sf 1 2 -x /s -f b.cfg", "haproxy a.cfg b.cfg dir /w"},
		{"haproxy -cc version_atleast(2.4) -f /a", "haproxy /a"},
		{"systemctl reload nginx", "unit nginx.service"},
		{"sudo /bin/systemctl --no-block reload apache2@x.service", "unit apache2@x.service"},
		{"systemctl -M box reload nginx", "elsewhere"},
		{"systemctl -H root@box reload nginx", "elsewhere"},
		{"service haproxy reload", "unit haproxy.service"},
		{"/etc/init.d/nginx reload", "unit nginx.service"},
		{"rc-service -q nginx reload", "unit nginx.service"},
		{"sh -c|nginx -t && nginx -s reload -c '/a b.conf'", "nginx /a b.conf"},
		{"bash -euc|cd /x; docker exec x nginx -s reload", "elsewhere"},
		{"sh -c|systemctl reload haproxy || true", "unit haproxy.service"},
		{"sh -c|nginx -c $CONF", "nginx"},
		{"sh|reload.sh", ""},
		{"docker exec web nginx -s reload -c /a.conf", "elsewhere"},
		{"sudo docker compose exec web nginx -s reload", "elsewhere"},
		{"kubectl exec x -- nginx -s reload", "elsewhere"},
		{"ssh web nginx -s reload", "elsewhere"},
		{"nsenter -t 1 -m nginx -s reload", "elsewhere"},
		{"/usr/local/bin/reload-nginx", ""},
		{"logger nginx reloaded", ""},
		{"postfix reload", ""},
		{"", ""},
		{"nginx -c", "nginx"},
		{"haproxy -f", "haproxy"},
		{"sudo", ""},
	} {
		var argv []string
		for i, part := range strings.Split(c.command, "|") {
			switch {
			case i > 0 && strings.Contains(c.command, "sh -"):
				argv = append(argv, strings.Join(strings.Split(c.command, "|")[1:], "|"))
			case i%2 == 0:
				argv = append(argv, strings.Fields(part)...)
			default:
				argv = append(argv, part)
			}
			if i > 0 && strings.Contains(c.command, "sh -") {
				break
			}
		}
		told := recognise(argv, 0)
		got := string(told.inv.kind)
		for _, conf := range told.inv.configs {
			if conf != "" {
				got += " " + conf
			}
		}
		if told.inv.prefix != "" {
			got += " prefix " + told.inv.prefix
		}
		for _, d := range told.inv.defines {
			got += " define " + d
		}
		if told.inv.kind != "" && told.inv.dir != "/" {
			got += " dir " + told.inv.dir
		}
		if told.unit != "" {
			got += "unit " + told.unit
		}
		if told.elsewhere {
			got += "elsewhere"
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", argv, got, c.want)
		}
	}
}

// placesIn has everything below a directory.
func placesIn(dir string) *places {
	p := usual()
	in := func(paths []string) {
		for i := range paths {
			paths[i] = dir + paths[i]
		}
	}
	in(p.cgroups)
	for _, m := range []map[Kind][]string{p.configs, p.prefixes, p.pids, p.settings, p.extra} {
		for _, paths := range m {
			in(paths)
		}
	}
	for _, paths := range p.instance {
		in(paths)
	}
	return p
}

func TestInvocation(t *testing.T) {
	unit := func(names ...string) Hint { return Hint{Units: names} }
	command := func(words ...string) Hint { return Hint{Commands: [][]string{words}} }
	for _, c := range []struct {
		name  string
		files string // that exist, between blanks
		hint  Hint
		want  string
		gap   string
	}{
		{"Debian's nginx", "etc/nginx/nginx.conf", unit("nginx.service"), "nginx /etc/nginx/nginx.conf", ""},
		{"a unit without its suffix", "etc/nginx/nginx.conf", unit("nginx"), "nginx /etc/nginx/nginx.conf", ""},
		{"nginx from source", "usr/local/nginx/conf/nginx.conf", command("/usr/local/nginx/sbin/nginx", "-s", "reload"), "nginx /usr/local/nginx/conf/nginx.conf", ""},
		{"FreeBSD's nginx", "usr/local/etc/nginx/nginx.conf", command("service", "nginx", "reload"), "nginx /usr/local/etc/nginx/nginx.conf", ""},
		{"Debian's Apache", "etc/apache2/apache2.conf", unit("apache2.service"), "apache /etc/apache2/apache2.conf root /etc/apache2", ""},
		{"Red Hat's Apache", "etc/httpd/conf/httpd.conf", unit("httpd.service"), "apache /etc/httpd/conf/httpd.conf root /etc/httpd", ""},
		{"Alpine's Apache", "etc/apache2/httpd.conf", command("rc-service", "apache2", "reload"), "apache /etc/apache2/httpd.conf root /etc/apache2", ""},
		{"Apache's own -d", "srv/conf/httpd.conf", command("apachectl", "-d", "DIR/srv", "graceful"), "apache /srv/conf/httpd.conf root /srv", ""},
		{"HAProxy", "etc/haproxy/haproxy.cfg", unit("haproxy.service"), "haproxy /etc/haproxy/haproxy.cfg", ""},
		{"HAProxy with a directory", "etc/haproxy/haproxy.cfg etc/haproxy/conf.d/x", unit("haproxy.service"), "haproxy /etc/haproxy/haproxy.cfg /etc/haproxy/conf.d?", ""},
		{"HAProxy with another configuration", "etc/haproxy/haproxy.cfg etc/default/haproxy=CONFIG=DIR/x.cfg x.cfg", unit("haproxy.service"), "haproxy /x.cfg", ""},
		{"a relative -c", "usr/share/nginx/a/b.conf", command("nginx", "-c", "a/b.conf"), "nginx /usr/share/nginx/a/b.conf", ""},
		{"a flag wins over the unit", "etc/nginx/nginx.conf", Hint{Units: []string{"nginx.service"}, Commands: [][]string{{"nginx", "-t", "-c", "/own.conf"}}}, "nginx own=/own.conf", ""},
		{"the first flag of several commands", "", Hint{Commands: [][]string{{"nginx", "-s", "reload"}, {"nginx", "-t", "-c", "/own.conf"}, {"nginx", "-c", "/other.conf"}}}, "nginx own=/own.conf", ""},
		{"an instance", "etc/nginx/blue.conf etc/nginx/nginx.conf", unit("nginx@blue.service"), "nginx /etc/nginx/blue.conf", ""},
		{"Debian's instance of Apache", "etc/apache2-blue/apache2.conf", unit("apache2@blue.service"), "apache /etc/apache2-blue/apache2.conf root /etc/apache2-blue", ""},
		{"an instance that is not known", "etc/nginx/nginx.conf", unit("nginx@blue.service"), "nginx", "the configuration of nginx@blue is not known"},
		{"nothing there", "", unit("nginx.service"), "nginx", "the configuration of this nginx was not found"},
		{"another program", "etc/nginx/nginx.conf", unit("postfix.service"), "", ""},
		{"in a container", "etc/nginx/nginx.conf", Hint{Units: []string{"nginx.service"}, Commands: [][]string{{"docker", "exec", "x", "nginx", "-s", "reload"}}}, "", ""},
		{"a pidfile's name", "etc/nginx/nginx.conf run/nginx.pid=x", Hint{PIDFiles: []string{"DIR/run/nginx.pid"}}, "nginx /etc/nginx/nginx.conf", ""},
		{"nothing", "etc/nginx/nginx.conf", Hint{}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range strings.Fields(c.files) {
				name, text, _ := strings.Cut(f, "=")
				write(t, dir, map[string]string{name: text})
			}
			p := placesIn(dir)
			for _, argv := range c.hint.Commands {
				for i := range argv {
					argv[i] = strings.ReplaceAll(argv[i], "DIR", dir)
				}
				if strings.HasPrefix(argv[0], "/usr/local") {
					argv[0] = dir + argv[0]
				}
			}
			c.hint.PIDFiles = inDir(dir, c.hint.PIDFiles)
			inv, gap := p.invocation(c.hint)
			got := string(inv.kind)
			if gap == nil {
				for _, conf := range inv.configs {
					short, ok := strings.CutPrefix(conf, dir)
					if !ok {
						short = "own=" + conf
					}
					got += " " + short
					if inv.maybe[conf] != "" {
						got += "?"
					}
				}
				if inv.prefix != "" {
					root := strings.TrimPrefix(inv.prefix, dir)
					got += " root " + root
				}
			}
			if c.name == "Debian's instance of Apache" { // its root is told by -d only
				got, c.want = got[:strings.Index(got, " root")], c.want[:strings.Index(c.want, " root")]
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if c.gap == "" != (gap == nil) || gap != nil && !strings.Contains(gap.Sentence, c.gap) {
				t.Errorf("gap %+v, want %q", gap, c.gap)
			}
		})
	}
}

// TestProcess reads made-up processes: those in containers, and titles.
func TestProcess(t *testing.T) {
	dir := t.TempDir()
	p := placesIn(dir)
	p.proc = dir + "/proc"
	process := func(pid int, comm, cmdline, root string) {
		write(t, dir, map[string]string{
			fmt.Sprintf("proc/%d/comm", pid):    comm + "\n",
			fmt.Sprintf("proc/%d/cmdline", pid): cmdline,
			fmt.Sprintf("proc/%d/environ", pid): "A=1\x00AB=2\x00",
			fmt.Sprintf("proc/%d/stat", pid):    fmt.Sprintf("%d (%s) S 1 %s 100", pid, comm, strings.Repeat("0 ", 17)),
			fmt.Sprintf("%d.pid", pid):          strconv.Itoa(pid) + "\nmore\n",
		})
		if root != "" {
			if err := os.Symlink(root, fmt.Sprintf("%s/proc/%d/root", dir, pid)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/srv", fmt.Sprintf("%s/proc/%d/cwd", dir, pid)); err != nil {
			t.Fatal(err)
		}
	}
	process(10, "nginx", "nginx: master process /usr/sbin/nginx -g daemon on; master_process on; -p web -c own.conf\x00\x00\x00", "/")
	process(11, "nginx", "nginx: worker process", "/")
	process(12, "haproxy", "/usr/sbin/haproxy\x00-Ws\x00-f\x00a.cfg\x00-C\x00sub\x00-p\x00/run/h\x00", "/")
	process(13, "apache2", "/usr/sbin/apache2\x00-d\x00/x\x00-DY\x00-k\x00start\x00-f\x00b.conf\x00", "/")
	process(14, "nginx", "nginx\x00-c\x00/own.conf\x00", dir)
	process(15, "sh", "nginx\x00-c\x00/own.conf\x00", "/")
	process(16, "nginx", "nginx\x00-c\x00/own.conf\x00", "")
	write(t, dir, map[string]string{"proc/16/cgroup": "0::/system.slice/docker-1234.scope\n", "proc/self/cgroup": "0::/system.slice/renewatch.service\n",
		"etc/nginx/nginx.conf": "", "/sys/fs/cgroup/system.slice/web.service/cgroup.procs": "11\n10\n", "/sys/fs/cgroup/system.slice/system-a\\x2db.slice/a-b@x.service/cgroup.procs": "12\n"})

	for _, c := range []struct {
		name string
		hint Hint
		want string
		gap  string
	}{
		{"a title", Hint{PIDFiles: []string{dir + "/10.pid"}}, "nginx /srv/web/own.conf exact", ""},
		{"a worker", Hint{PIDFiles: []string{dir + "/11.pid"}}, "nginx " + dir + "/etc/nginx/nginx.conf", ""},
		{"HAProxy", Hint{PIDFiles: []string{dir + "/12.pid"}}, "haproxy /srv/a.cfg exact", ""},
		{"Apache", Hint{PIDFiles: []string{dir + "/13.pid"}}, "apache /x/b.conf exact", ""},
		{"another root", Hint{PIDFiles: []string{dir + "/14.pid"}}, "nginx", "process 14) runs on another file system"},
		{"not a server", Hint{PIDFiles: []string{dir + "/15.pid"}}, "", ""},
		{"a container by its group", Hint{PIDFiles: []string{dir + "/16.pid"}}, "nginx", "process 16) runs on another file system"},
		{"a pidfile of another kind", Hint{Units: []string{"nginx.service"}, PIDFiles: []string{dir + "/12.pid"}}, "nginx " + dir + "/etc/nginx/nginx.conf", ""},
		{"a unit's processes", Hint{Units: []string{"web.service"}}, "nginx /srv/web/own.conf exact", ""},
		{"an instance's processes", Hint{Units: []string{"a-b@x"}}, "haproxy /srv/a.cfg exact", ""},
		{"a flag wins", Hint{Commands: [][]string{{"nginx", "-c", "/flag.conf"}}, PIDFiles: []string{dir + "/10.pid"}}, "nginx /flag.conf", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv, gap := p.invocation(c.hint)
			got := string(inv.kind)
			if gap == nil {
				got = strings.Join(append([]string{got}, inv.configs...), " ")
				if inv.exact {
					got += " exact"
				}
			}
			if strings.TrimSpace(got) != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if c.gap == "" != (gap == nil) || gap != nil && !strings.Contains(gap.Sentence, c.gap) {
				t.Errorf("gap %+v, want %q", gap, c.gap)
			}
			if inv.exact {
				if v, ok := inv.env("A"); v != "1" || !ok {
					t.Errorf("the environment has A=%q", v)
				}
				if _, ok := inv.env("B"); ok {
					t.Error("the environment has B")
				}
			}
		})
	}
}

func TestAssignments(t *testing.T) {
	got := assignments("# x\nunset HOME\nexport APACHE_RUN_DIR=/run/apache2\nAPACHE_A='a b'\nexport APACHE_B=\"b\"\r\nAPACHE_C=/x$SUFFIX\nAPACHE_D=a b\n" +
		"if x; then\n\tAPACHE_E=1\nfi\nAPACHE_F=1\nAPACHE_F=2\nAPACHE_G=1\nAPACHE_G=1\nA-B=1\n=x\nAPACHE_H=`id`\nAPACHE_I=\n")
	var all []string
	for k, v := range got {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	if want := []string{"APACHE_A=a b", "APACHE_B=b", "APACHE_G=1", "APACHE_I=", "APACHE_RUN_DIR=/run/apache2"}; !slices.Equal(all, want) {
		t.Errorf("%q, want %q", all, want)
	}
}

func TestApacheEnvironment(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"etc/apache2/envvars":      "export APACHE_TLS=/srv/tls\nexport OTHER=/x\n",
		"etc/apache2/apache2.conf": "<VirtualHost *:443>\nSSLEngine on\nSSLCertificateFile ${APACHE_TLS}/a.pem\nSSLCertificateFile ${OTHER}/b.pem\n</VirtualHost>\n",
	})
	found, err := Reader{where: placesIn(dir)}.Pairs(context.Background(), Hint{Units: []string{"apache2.service"}})
	if err != nil || found.Config != filepath.Join(dir, "etc/apache2/apache2.conf") {
		t.Fatalf("%+v, %v", found, err)
	}
	wantPairs(t, dir, found, "/srv/tls/a.pem /srv/tls/a.pem")
	wantGaps(t, found, "${OTHER} is not known")
}

// TestNothing: what is not understood is no error.
func TestNothing(t *testing.T) {
	for _, h := range []Hint{{}, {Units: []string{"postfix.service"}}, {Commands: [][]string{nil, {}, {""}, {"docker", "exec", "a", "nginx"}}}, {PIDFiles: []string{"/nowhere/at.all"}}} {
		found, err := Reader{}.Pairs(context.Background(), h)
		if err != nil || found.Kind != "" || found.Config != "" || found.Pairs != nil || found.Unread != nil {
			t.Errorf("%+v: %+v, %v", h, found, err)
		}
	}
}
