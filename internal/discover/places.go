package discover

import (
	"path"
	"path/filepath"
	"strings"
)

// places is where the distributions keep things.
type places struct {
	proc     string              // where the kernel tells of processes
	cgroups  []string            // where systemd's slices may hang
	configs  map[Kind][]string   // main configuration files
	prefixes map[Kind][]string   // what relative -c and -f are relative to
	pids     map[Kind][]string   // pidfiles
	instance map[string][]string // configurations of instances, by the template's name; * is the instance
	settings map[Kind][]string   // files of plain assignments that the unit reads
	extra    map[Kind][]string   // configurations that some distributions read besides
}

func usual() *places {
	return &places{
		proc: "/proc",
		cgroups: []string{
			"/sys/fs/cgroup/system.slice",
			"/sys/fs/cgroup/systemd/system.slice",
			"/sys/fs/cgroup/unified/system.slice",
		},
		configs: map[Kind][]string{
			Nginx: {
				"/etc/nginx/nginx.conf",
				"/etc/angie/angie.conf",
				"/usr/local/etc/nginx/nginx.conf",
				"/usr/local/nginx/conf/nginx.conf",
				"/usr/local/openresty/nginx/conf/nginx.conf",
				"/opt/nginx/conf/nginx.conf",
			},
			Apache: {
				"/etc/apache2/apache2.conf",
				"/etc/httpd/conf/httpd.conf",
				"/etc/apache2/httpd.conf",
				"/usr/local/etc/apache24/httpd.conf",
				"/usr/local/apache2/conf/httpd.conf",
			},
			HAProxy: {
				"/etc/haproxy/haproxy.cfg",
				"/usr/local/etc/haproxy/haproxy.cfg",
				"/usr/local/etc/haproxy.conf",
			},
		},
		prefixes: map[Kind][]string{
			Nginx: {"/etc/nginx", "/usr/share/nginx", "/usr/local/nginx", "/usr/local/openresty/nginx", "/usr/local/etc/nginx"},
			Apache: {"/etc/apache2", "/etc/httpd", "/usr/local/apache2", "/usr/local/etc/apache24",
				"/usr/local"},
		},
		pids: map[Kind][]string{
			Nginx:   {"/run/nginx.pid", "/var/run/nginx.pid", "/run/nginx/nginx.pid", "/usr/local/nginx/logs/nginx.pid"},
			Apache:  {"/run/apache2/apache2.pid", "/run/httpd/httpd.pid", "/run/httpd.pid", "/var/run/httpd.pid", "/usr/local/apache2/logs/httpd.pid"},
			HAProxy: {"/run/haproxy.pid", "/run/haproxy/haproxy.pid", "/var/run/haproxy.pid"},
		},
		instance: map[string][]string{
			"nginx":   {"/etc/nginx/*.conf", "/etc/nginx/nginx-*.conf", "/etc/nginx-*/nginx.conf"},
			"apache2": {"/etc/apache2-*/apache2.conf"},
			"httpd":   {"/etc/httpd/conf/*.conf"},
			"haproxy": {"/etc/haproxy/*.cfg", "/etc/haproxy/haproxy-*.cfg", "/etc/haproxy-*/haproxy.cfg"},
		},
		settings: map[Kind][]string{
			Apache:  {"/etc/apache2/envvars", "/etc/sysconfig/httpd"},
			HAProxy: {"/etc/default/haproxy", "/etc/sysconfig/haproxy"},
		},
		extra: map[Kind][]string{HAProxy: {"/etc/haproxy/conf.d"}},
	}
}

// unitKind tells the kind of server from a unit's name.
func unitKind(unit string) (kind Kind, template, instance string) {
	name := strings.TrimSuffix(path.Base(unit), ".service")
	template, instance, _ = strings.Cut(name, "@")
	kind = programs[template]
	return kind, template, instance
}

// invocation finds out how the server of a hint is started. The gap says why its
// configuration cannot be known although its kind is.
func (p *places) invocation(h Hint) (invocation, *Gap) {
	var inv invocation
	units := h.Units
	for _, argv := range h.Commands {
		t := recognise(argv, 0)
		if t.elsewhere {
			return invocation{}, nil
		}
		if t.unit != "" {
			units = append(units[:len(units):len(units)], t.unit)
		}
		if inv.kind == "" || t.inv.kind == inv.kind && t.inv.flagged() && !inv.flagged() {
			inv = t.inv
		}
	}
	template, instance := "", ""
	for _, unit := range units {
		kind, tmpl, inst := unitKind(unit)
		if inv.kind == "" {
			inv = invocation{kind: kind, program: tmpl, dir: "/"}
		}
		if kind != "" && kind == inv.kind && template == "" {
			template, instance = tmpl, inst
		}
	}
	proc, gap := p.running(inv.kind, units, h.PIDFiles, instance == "")
	if gap != nil {
		return invocation{kind: proc.kind}, gap
	}
	if inv.kind == "" && proc.kind == "" {
		for _, f := range h.PIDFiles {
			name, _, _ := strings.Cut(path.Base(f), ".")
			if kind := programs[name]; kind != "" {
				inv = invocation{kind: kind, program: name, dir: "/"}
				break
			}
		}
	}
	if inv.kind == "" && proc.kind == "" {
		return invocation{}, nil
	}
	if !inv.flagged() && proc.kind != "" {
		inv = proc
	}
	inv.env = p.environment(inv.kind, proc.pid)

	if !inv.flagged() && instance != "" && !inv.exact {
		for _, pattern := range p.instance[template] {
			inv.configs = append(inv.configs, strings.ReplaceAll(pattern, "*", instance))
		}
		conf := first(inv.configs)
		if conf == "" {
			unit := template + "@" + instance
			return inv, &Gap{Path: unit, Sentence: "the configuration of " + show(unit) + " is not known",
				Hint: "name its pidfile, or its configuration in the test command"}
		}
		inv.configs = []string{conf}
	}
	return p.resolve(inv)
}

// resolve makes the configuration files absolute, or takes the usual ones.
func (p *places) resolve(inv invocation) (invocation, *Gap) {
	given := inv.configs
	inv.configs = nil
	if inv.prefix != "" {
		inv.prefix = under(inv.dir, inv.prefix)
	}
	if inv.kind == HAProxy {
		for _, c := range given {
			inv.configs = append(inv.configs, under(inv.dir, c))
		}
	} else if len(given) > 0 {
		inv.configs = []string{p.relative(inv, given[0])}
	}
	if len(inv.configs) > 0 {
		inv.prefix = p.root(inv)
		return inv, nil
	}

	usual := p.configs[inv.kind]
	switch {
	case inv.prefix != "" && inv.kind == Apache:
		usual = []string{under(inv.prefix, "apache2.conf"), under(inv.prefix, "conf/httpd.conf"), under(inv.prefix, "httpd.conf")}
	case inv.prefix != "" && inv.kind == Nginx && (path.Base(inv.program) == "openresty" || own(inv.program)):
		// nginx as it comes from its makers has its configuration under the
		// prefix; packages have theirs at a fixed place.
		usual = append([]string{under(inv.prefix, "conf/nginx.conf")}, usual...)
	case inv.kind == Nginx && own(inv.program):
		usual = append([]string{under(dirOf(dirOf(inv.program)), "conf/nginx.conf")}, usual...)
	case inv.kind == Apache && own(inv.program):
		usual = append([]string{under(dirOf(dirOf(inv.program)), "conf/httpd.conf")}, usual...)
	case inv.kind == HAProxy:
		if conf, ok := inv.env("CONFIG"); ok && strings.HasPrefix(conf, "/") {
			usual = append([]string{conf}, usual...)
		}
	}
	conf := first(usual)
	if conf == "" {
		return inv, &Gap{Path: strings.Join(usual[:min(len(usual), 1)], ""), Sentence: "the configuration of this " + string(inv.kind) + " was not found",
			Hint: "name it in the test command, for example: " + example[inv.kind]}
	}
	inv.configs = []string{conf}
	inv.prefix = p.root(inv)
	if !inv.exact {
		for _, dir := range p.extra[inv.kind] {
			if dirOf(dir) == dirOf(conf) && exists(dir) {
				inv.configs = append(inv.configs, dir)
				inv.maybe = map[string]string{dir: "-f " + dir}
			}
		}
	}
	return inv, nil
}

// root is Apache's ServerRoot before the configuration says one: -d, or what is
// compiled in, which the place of the configuration tells where it is a usual one.
func (p *places) root(inv invocation) string {
	if inv.prefix != "" || inv.kind != Apache {
		return inv.prefix
	}
	for _, prefix := range p.prefixes[Apache] {
		if strings.HasPrefix(inv.configs[0], prefix+"/") {
			return prefix
		}
	}
	if found := first(p.prefixes[Apache]); found != "" {
		return found
	}
	return dirOf(inv.configs[0])
}

// own reports whether a program was not installed by a distribution's package.
func own(program string) bool {
	return strings.HasPrefix(program, "/") && dirOf(program) != "/usr/sbin" && dirOf(program) != "/usr/bin" && dirOf(program) != "/sbin"
}

var example = map[Kind]string{
	Nginx:   "nginx -t -c FILE",
	Apache:  "apachectl -t -f FILE",
	HAProxy: "haproxy -c -f FILE",
}

// relative resolves the configuration file of nginx and Apache, which is
// relative to a directory that is compiled in when no flag says otherwise.
func (p *places) relative(inv invocation, conf string) string {
	if strings.HasPrefix(conf, "/") {
		return conf
	}
	if inv.prefix != "" {
		return under(inv.prefix, conf)
	}
	var may []string
	if own(inv.program) {
		may = append(may, under(dirOf(dirOf(inv.program)), conf))
	}
	for _, prefix := range p.prefixes[inv.kind] {
		may = append(may, under(prefix, conf))
	}
	if found := first(may); found != "" {
		return found
	}
	return filepath.Clean(under(p.prefixes[inv.kind][0], conf))
}
