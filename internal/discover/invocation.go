package discover

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// invocation is how a server is started, as far as that is known.
type invocation struct {
	kind    Kind
	program string   // the word that names the program
	configs []string // configuration files, absolute once resolved; HAProxy may have several
	dir     string   // the working directory
	prefix  string   // nginx -p, Apache -d
	defines []string // Apache -D
	before  []string // Apache -C: directives before the configuration
	after   []string // Apache -c: directives behind it
	exact   bool     // this is the command line of the running process: nothing is missing in it
	pid     int      // the running process, 0 where none is known

	// maybe holds configuration files that are read under the condition that
	// stands beside them.
	maybe map[string]string
	// env looks up a variable of the server's environment.
	env func(name string) (string, bool)
}

// flagged reports whether a flag says which configuration is read.
func (inv invocation) flagged() bool { return len(inv.configs) > 0 || inv.prefix != "" }

// programs are the names of servers and of what controls them.
var programs = map[string]Kind{
	"nginx": Nginx, "openresty": Nginx, "angie": Nginx, "freenginx": Nginx,
	"apache2": Apache, "httpd": Apache, "httpd2": Apache, "apache2ctl": Apache, "apachectl": Apache, "httpd-prefork": Apache,
	"haproxy": HAProxy,
}

// elsewhere are programs that run another one on another file system.
var elsewhere = map[string]bool{
	"docker": true, "docker-compose": true, "podman": true, "podman-compose": true, "nerdctl": true, "crictl": true,
	"ctr": true, "runc": true, "crun": true, "kubectl": true, "oc": true, "ssh": true, "lxc": true, "lxc-attach": true,
	"incus": true, "machinectl": true, "nsenter": true, "chroot": true, "systemd-nspawn": true, "jexec": true,
	"flatpak": true, "flatpak-spawn": true, "distrobox": true, "toolbox": true, "virsh": true, "pct": true,
}

// wrappers run the command that follows their own options, here.
var wrappers = map[string]bool{
	"sudo": true, "doas": true, "env": true, "nice": true, "ionice": true, "timeout": true, "setsid": true,
	"nohup": true, "stdbuf": true, "chronic": true, "flock": true, "time": true, "exec": true, "busybox": true,
	"command": true, "runuser": true, "setpriv": true, "chrt": true, "taskset": true, "prlimit": true,
}

// told is what a command says of a server.
type told struct {
	inv       invocation
	unit      string // systemctl reload UNIT, service NAME reload
	elsewhere bool
}

// maxWords bounds what is looked at of one command.
const maxWords = 512

// recognise finds the server in a command that reloads or tests it.
func recognise(argv []string, nested int) told {
	argv = argv[:min(len(argv), maxWords)]
	for i := 0; i < len(argv); i++ {
		word, rest := path.Base(argv[i]), argv[i+1:]
		kind, server := programs[word]
		switch {
		case script(argv[i]):
			return told{unit: word + ".service"}
		case server:
			return told{inv: flags(kind, argv[i], rest)}
		case elsewhere[word]:
			return told{elsewhere: true}
		case word == "systemctl":
			return systemctl(rest)
		case word == "service" || word == "rc-service" || word == "invoke-rc.d":
			for _, w := range rest {
				if !strings.HasPrefix(w, "-") {
					return told{unit: w + ".service"}
				}
			}
			return told{}
		case word == "sh" || word == "bash" || word == "dash" || word == "ash" || word == "ksh" || word == "zsh":
			return shell(rest, nested)
		case wrappers[word]:
			// The first word that is known ends the wrapper's own options.
			for i+1 < len(argv) && !known(argv[i+1]) {
				i++
			}
		default:
			return told{}
		}
	}
	return told{}
}

// script reports whether a word is a service's own script.
func script(word string) bool {
	return strings.HasPrefix(word, "/etc/init.d/") || strings.HasPrefix(word, "/etc/rc.d/") || strings.HasPrefix(word, "/usr/local/etc/rc.d/")
}

// known reports whether recognise has an opinion of a word.
func known(word string) bool {
	base := path.Base(word)
	if _, ok := programs[base]; ok || elsewhere[base] || wrappers[base] || script(word) {
		return true
	}
	switch base {
	case "systemctl", "service", "rc-service", "invoke-rc.d", "sh", "bash", "dash", "ash", "ksh", "zsh":
		return true
	}
	return false
}

func systemctl(args []string) told {
	var t told
	verb := false
	for _, w := range args {
		switch {
		case w == "-H" || w == "-M" || strings.HasPrefix(w, "--host") || strings.HasPrefix(w, "--machine") || w == "--user":
			return told{elsewhere: true}
		case strings.HasPrefix(w, "-"):
		case !verb:
			verb = true
		case t.unit == "":
			t.unit = w
			if path.Ext(w) != ".service" {
				t.unit += ".service"
			}
		}
	}
	return t
}

// shell looks into sh -c 'nginx -t && nginx -s reload'.
func shell(args []string, nested int) told {
	for i, w := range args {
		if !strings.HasPrefix(w, "-") || i+1 >= len(args) {
			return told{}
		}
		if !strings.HasSuffix(w, "c") {
			continue
		}
		if nested > 2 {
			return told{}
		}
		var first told
		for _, command := range shellWords(args[i+1]) {
			t := recognise(command, nested+1)
			if t.elsewhere {
				return t
			}
			if first.inv.kind == "" && first.unit == "" || t.inv.kind == first.inv.kind && t.inv.flagged() && !first.inv.flagged() {
				first = t
			}
		}
		return first
	}
	return told{}
}

// shellWords cuts a shell script of simple commands into these. Expansions stay
// as they are written.
func shellWords(script string) [][]string {
	var all [][]string
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	script = script[:min(len(script), 1<<16)]
	for i := 0; i < len(script); i++ {
		c := script[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(script):
			i++
			word.WriteByte(script[i])
			inWord = true
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			endWord()
		case c == '\n' || c == ';' || c == '&' || c == '|' || c == '(' || c == ')':
			endCommand()
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	endCommand()
	return all
}

// flags reads the arguments of a server. Values that a shell would still have to
// expand say nothing.
func flags(kind Kind, program string, args []string) invocation {
	inv := invocation{kind: kind, program: program, dir: "/"}
	switch kind {
	case Nginx:
		inv.nginxFlags(args)
	case Apache:
		inv.apacheFlags(args)
	case HAProxy:
		inv.haproxyFlags(args)
	}
	for _, c := range append([]string{inv.prefix}, inv.configs...) {
		if strings.ContainsAny(c, "$`") {
			return invocation{kind: kind, program: program, dir: "/"}
		}
	}
	return inv
}

// nginxFlags follows ngx_get_options: flags may stand together (-tc FILE), and a
// value may follow at once (-c/etc/x.conf).
func (inv *invocation) nginxFlags(args []string) {
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			continue // nginx would refuse; words of -g lose their quotes in the title of a process
		}
		for j := 1; j < len(args[i]); j++ {
			flag := args[i][j]
			if !strings.ContainsRune("cpges", rune(flag)) {
				continue
			}
			v := args[i][j+1:]
			if v == "" && i+1 < len(args) {
				i++
				v = args[i]
			}
			if flag == 'c' {
				inv.configs = []string{v}
			} else if flag == 'p' {
				inv.prefix = v
			}
			break
		}
	}
}

// apacheFlags follows apr_getopt.
func (inv *invocation) apacheFlags(args []string) {
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			continue // apachectl graceful
		}
		for j := 1; j < len(args[i]); j++ {
			flag := args[i][j]
			if !strings.ContainsRune("DCcdfkeE", rune(flag)) {
				continue
			}
			v := args[i][j+1:]
			if v == "" && i+1 < len(args) {
				i++
				v = args[i]
			}
			switch flag {
			case 'D':
				inv.defines = append(inv.defines, v)
			case 'C':
				inv.before = append(inv.before, v)
			case 'c':
				inv.after = append(inv.after, v)
			case 'd':
				inv.prefix = v
			case 'f':
				inv.configs = []string{v}
			}
			break
		}
	}
}

// haproxyFlags follows init_args.
func (inv *invocation) haproxyFlags(args []string) {
	for i := 0; i < len(args); i++ {
		w := args[i]
		if w == "--" {
			inv.configs = append(inv.configs, args[i+1:]...)
			return
		}
		if len(w) < 2 || w[0] != '-' || w == "-cc" {
			continue
		}
		switch w[1] {
		case 'f', 'C', 'n', 'm', 'N', 'L', 'p', 'S', 'x':
			if i++; i == len(args) {
				return
			}
			switch w[1] {
			case 'f':
				inv.configs = append(inv.configs, args[i])
			case 'C':
				inv.dir = under(inv.dir, args[i])
			}
		}
	}
}

// exists reports whether path is there, or may be: where that may not be seen.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// first returns the first path that exists.
func first(paths []string) string {
	for _, p := range paths {
		if exists(p) {
			return p
		}
	}
	return ""
}
