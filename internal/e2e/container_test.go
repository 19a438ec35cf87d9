package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image is what buildah makes of the Dockerfile, in a storage of the test's own,
// without an engine, a registry or a network.
type image struct {
	t      *testing.T
	dir    string
	root   string // its files, of one container that is never started by buildah
	config imageConfig
}

// imageConfig is what an engine reads from the image.
type imageConfig struct {
	User        string              `json:"User"`
	Env         []string            `json:"Env"`
	Entrypoint  []string            `json:"Entrypoint"`
	Cmd         []string            `json:"Cmd"`
	WorkingDir  string              `json:"WorkingDir"`
	Volumes     map[string]struct{} `json:"Volumes"`
	Labels      map[string]string   `json:"Labels"`
	Healthcheck *struct {
		Test []string `json:"Test"`
	} `json:"Healthcheck"`
}

// buildImage builds the Dockerfile. Of the build stage's base image only the name
// is needed: a stand-in has a shell, the Go of this machine with its caches, and
// the CA bundle. The final stage begins with nothing, so it is the real one.
func buildImage(t *testing.T, args map[string]string) *image {
	t.Helper()
	mustApart(t)
	release(t) // leaves the packages in the build cache
	i := &image{t: t, dir: t.TempDir()}
	// What this machine configures for containers is not to matter.
	for _, dir := range []string{"/etc/containers", "/usr/share/containers"} {
		if _, err := os.Stat(dir); err == nil {
			mountAt(t, "-t", "tmpfs", "tmpfs", dir)
		}
	}
	const policy = `{"default":[{"type":"insecureAcceptAnything"}]}`
	writeFile(t, i.path("policy.json"), policy, 0o644)
	writeFile(t, i.path("registries.conf"), "", 0o644)
	writeFile(t, i.path("storage.conf"), "[storage]\ndriver = \"vfs\"\n", 0o644)
	for _, dir := range []string{"home", "tmp"} {
		if err := os.Mkdir(i.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	base := regexp.MustCompile(`(?m)^FROM (golang:\S+) AS build$`).FindStringSubmatch(readFile(t, filepath.Join(repoRoot(t), "Dockerfile")))
	if base == nil {
		t.Fatal("the Dockerfile builds on no golang image")
	}
	i.standIn("docker.io/library/" + base[1])

	build := []string{"bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--pull-never",
		"--signature-policy", i.path("policy.json"), "--tag", "localhost/renewatch"}
	for _, mount := range [][3]string{
		{goEnv(t, "GOROOT"), "/usr/local/go", "ro"},
		{goEnv(t, "GOMODCACHE"), "/go/pkg/mod", "ro"},
		{goEnv(t, "GOCACHE"), "/root/.cache/go-build", "rw"},
	} {
		build = append(build, "--volume", strings.Join(mount[:], ":"))
	}
	for name, value := range args {
		build = append(build, "--build-arg", name+"="+value)
	}
	i.buildah(append(build, repoRoot(t))...)

	i.root = i.buildah("mount", i.buildah("from", "--pull-never", "--signature-policy", i.path("policy.json"), "localhost/renewatch"))
	var inspected struct {
		Docker struct {
			Config imageConfig `json:"config"`
		}
	}
	if err := json.Unmarshal([]byte(i.buildah("inspect", "--type", "image", "localhost/renewatch")), &inspected); err != nil {
		t.Fatal(err)
	}
	i.config = inspected.Docker.Config
	return i
}

func (i *image) path(name string) string { return filepath.Join(i.dir, name) }

// buildah runs it and returns what it printed.
func (i *image) buildah(args ...string) string {
	i.t.Helper()
	cmd := exec.Command(program(i.t, "buildah"), append([]string{"--root", i.path("root"), "--runroot", i.path("run"),
		"--storage-driver", "vfs", "--registries-conf", i.path("registries.conf")}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + i.path("home"), "TMPDIR=" + i.path("tmp"), "LANG=C.UTF-8",
		"CONTAINERS_STORAGE_CONF=" + i.path("storage.conf")}
	return strings.TrimSpace(mustRun(i.t, cmd).stdout)
}

// standIn makes an image of that name in which the build stage can run.
func (i *image) standIn(name string) {
	i.t.Helper()
	busybox := program(i.t, "busybox")
	container := i.buildah("from", "scratch")
	root := i.buildah("mount", container)
	for _, dir := range []string{"bin", "tmp", "usr/local/go", "go/pkg/mod", "root/.cache/go-build"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			i.t.Fatal(err)
		}
	}
	writeFile(i.t, filepath.Join(root, "bin", "busybox"), readFile(i.t, busybox), 0o755)
	for _, applet := range lines(mustRun(i.t, exec.Command(busybox, "--list")).stdout) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil && !errors.Is(err, fs.ErrExist) {
			i.t.Fatal(err)
		}
	}
	writeFile(i.t, filepath.Join(root, "etc", "passwd"), "root:x:0:0:root:/root:/bin/sh\n", 0o644)
	writeFile(i.t, filepath.Join(root, caBundle), readFile(i.t, "/"+caBundle), 0o644)
	i.buildah("config", "--env", "PATH=/usr/local/go/bin:/bin", "--env", "GOPATH=/go", "--env", "GOTOOLCHAIN=local", container)
	i.buildah("commit", "--quiet", "--rm", "--format", "docker", "--signature-policy", i.path("policy.json"), container, name)
}

// caBundle is where Debian and Alpine have the root certificates.
const caBundle = "etc/ssl/certs/ca-certificates.crt"

func goEnv(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(mustRun(t, exec.Command(program(t, "go"), "env", name)).stdout)
}

// files are the paths of everything in the image that is no directory, in order.
func (i *image) files() []string {
	i.t.Helper()
	var files []string
	if err := filepath.WalkDir(i.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, i.root))
		}
		return err
	}); err != nil {
		i.t.Fatal(err)
	}
	return files
}

// container runs the image under crun as an engine does that is told
// --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp
// --network host; the network is that of the test, which is apart.
type container struct {
	t    *testing.T
	name string
	dir  string
	spec object // its process
	*process
}

// object is one of a runtime's configuration.
type object = map[string]any

// start starts a container. mounts are SOURCE:DESTINATION:OPTION,...
func (i *image) start(t *testing.T, user string, env []string, mounts ...string) *container {
	t.Helper()
	c := &container{t: t, dir: t.TempDir(), name: fmt.Sprintf("renewatch-e2e-%d-%s", os.Getpid(), filepath.Base(i.root))}
	var uid, gid int
	if _, err := fmt.Sscanf(user, "%d:%d", &uid, &gid); err != nil {
		t.Fatalf("user %q: %v", user, err)
	}
	bind := func(source, destination string, options ...string) object {
		return object{"type": "bind", "source": source, "destination": destination, "options": append(options, "rbind", "rprivate", "nosuid", "nodev")}
	}
	all := []object{
		{"type": "proc", "source": "proc", "destination": "/proc"},
		{"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{"type": "tmpfs", "source": "tmpfs", "destination": "/tmp", "options": []string{"nosuid", "nodev", "noexec", "mode=1777"}},
	}
	for _, m := range mounts {
		parts := strings.Split(m, ":")
		all = append(all, bind(parts[0], parts[1], strings.Split(parts[2], ",")...))
	}
	none := []string{}
	c.spec = object{
		"terminal": false, "cwd": "/" + strings.TrimPrefix(i.config.WorkingDir, "/"),
		"user":            object{"uid": uid, "gid": gid},
		"args":            slices.Concat(i.config.Entrypoint, i.config.Cmd),
		"env":             slices.Concat(i.config.Env, env),
		"capabilities":    object{"bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none},
		"noNewPrivileges": true,
	}
	c.write("config.json", object{
		"ociVersion": "1.0.0",
		"hostname":   strings.Split(host, ".")[0],
		"root":       object{"path": i.root, "readonly": true},
		"mounts":     all,
		"process":    c.spec,
		"linux":      object{"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}},
	})
	// crun wants the one hierarchy of cgroups that it knows, although it uses none.
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		mountAt(t, "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
	}
	// Even when crun itself was killed.
	t.Cleanup(func() { run(t, c.crun("delete", "--force", c.name)) })
	c.process = spawn(t, "the container", c.crun("run", "--bundle", c.dir, c.name))
	return c
}

func (c *container) crun(args ...string) *exec.Cmd {
	c.t.Helper()
	return exec.Command(program(c.t, "crun"), append([]string{"--root", filepath.Join(c.dir, "crun"), "--cgroup-manager=disabled"}, args...)...)
}

func (c *container) write(name string, o object) string {
	c.t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.dir, name)
	writeFile(c.t, path, string(data), 0o644)
	return path
}

// exec runs a program in the container, as an engine runs its health check: with
// the user, the environment and the limits of the first process.
func (c *container) exec(args ...string) result {
	c.t.Helper()
	spec := maps.Clone(c.spec)
	spec["args"] = args
	return run(c.t, c.crun("exec", "--process", c.write("exec.json", spec), c.name))
}

// init is the pid of the container's first process, as seen from here.
func (c *container) init() int {
	c.t.Helper()
	var state struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(mustRun(c.t, c.crun("state", c.name)).stdout), &state); err != nil {
		c.t.Fatal(err)
	}
	return state.PID
}

// terminate asks the container to stop, and gives it the ten seconds that an
// engine gives before it kills.
func (c *container) terminate() {
	c.t.Helper()
	init := c.init()
	mustRun(c.t, c.crun("kill", c.name, "SIGTERM"))
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		_ = syscall.Kill(init, syscall.SIGKILL)
		c.t.Fatal("the container did not end within 10 s of SIGTERM")
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		c.t.Errorf("the container ended with %d", code)
	}
}
