package lineage

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	confsFresh = 30 * time.Second // how long an index is used
	maxConfs   = 20_000           // renewal configurations read of one directory
	maxConf    = 64 << 10         // bytes read of one
)

// confs finds lineages whose links or archive lie outside of certbot's
// configuration directory, as certbot update_symlinks allows it: only renewal/*.conf
// tells of them.
type confs struct {
	dir string

	mu    sync.Mutex
	read  time.Time
	paths map[string]Layout // links, and directories of archives
}

// find looks all forms of a path up.
func (c *confs) find(now time.Time, all []string) (Layout, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.read); c.paths == nil || age < 0 || age >= confsFresh {
		c.read, c.paths = now, readConfs(c.dir)
	}
	for _, form := range all {
		if l, ok := c.paths[form]; ok {
			return l, true
		}
	}
	for _, form := range all {
		if l, ok := c.paths[filepath.Dir(form)]; ok {
			return l, true
		}
	}
	return Layout{}, false
}

func readConfs(dir string) map[string]Layout {
	paths := make(map[string]Layout)
	renewal := filepath.Join(dir, "renewal")
	d, err := os.Open(renewal)
	if err != nil {
		return paths
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxConfs)
	for _, file := range names {
		name, ok := strings.CutSuffix(file, ".conf")
		if !ok || name == "" || !isFile(filepath.Join(renewal, file)) {
			continue
		}
		for key, value := range readConf(filepath.Join(renewal, file)) {
			if !filepath.IsAbs(value) {
				continue
			}
			// The archive is known by its directory, the links each by itself.
			if key == "archive_dir" || key == "cert" || key == "chain" || key == "fullchain" {
				paths[filepath.Clean(value)] = Layout{Certbot, name, dir}
			}
		}
	}
	return paths
}

// readConf reads the keys before the first section.
func readConf(path string) map[string]string {
	keys := make(map[string]string)
	f, err := os.Open(path)
	if err != nil {
		return keys
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxConf))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			break
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		keys[strings.TrimSpace(key)] = value
	}
	return keys
}
