//go:build ignore

// A registry on 127.0.0.1 that serves the images upstream's client suite pulls, made here from busybox.
//
// Usage: go run registry.go ADDRESS BUSYBOX; it prints "busybox DIGEST" when it listens, and serves until it is ended.
// Read-only: the suite only pulls. Each image has real files for this machine's architecture and an image of one file
// for each foreign one; no two images share a foreign blob, because the suite looks for blobs that are missing.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

const (
	index    = "application/vnd.docker.distribution.manifest.list.v2+json"
	manifest = "application/vnd.docker.distribution.manifest.v2+json"
	config   = "application/vnd.docker.container.image.v1+json"
	gzipped  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

type object map[string]any

// What is served: bytes by digest, their media type, and the digest of each repository:tag.
var (
	blobs = map[string][]byte{}
	types = map[string]string{}
	tags  = map[string]string{}
)

func put(kind string, data []byte) object {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	blobs[digest], types[digest] = data, kind
	return object{"mediaType": kind, "digest": digest, "size": len(data)}
}

func putJSON(kind string, value any) object {
	data, err := json.Marshal(value)
	must(err)
	return put(kind, data)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type file struct {
	name, data string
	link       string
	mode       int64
	uid        int
}

func dir(name string) file { return file{name: name + "/", mode: 0o755} }

// layer is an uncompressed tar of files; names that end in a slash are directories.
func layer(files []file) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		must(w.WriteHeader(h))
		_, err := w.Write([]byte(f.data))
		must(err)
	}
	must(w.Close())
	return out.Bytes()
}

// image adds an image with these layers for this machine's architecture.
func image(name string, user string, layers ...[]file) string {
	var manifests []object
	for _, platform := range []object{
		{"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"},
		{"os": "linux", "architecture": "s390x"}, {"os": "linux", "architecture": "ppc64le"},
	} {
		content := layers
		if platform["architecture"] != runtime.GOARCH {
			content = [][]file{{{name: "foreign", data: fmt.Sprint(name, platform), mode: 0o644}}}
		}
		var descriptors []object
		var ids []string
		for _, files := range content {
			plain := layer(files)
			ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(plain)))
			var packed bytes.Buffer
			w := gzip.NewWriter(&packed)
			_, err := w.Write(plain)
			must(err)
			must(w.Close())
			descriptors = append(descriptors, put(gzipped, packed.Bytes()))
		}
		run := object{"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "Cmd": []string{"sh"}}
		if user != "" {
			run["User"] = user
		}
		described := object{"config": run, "rootfs": object{"type": "layers", "diff_ids": ids}}
		for key, value := range platform {
			described[key] = value
		}
		m := putJSON(manifest, object{
			"schemaVersion": 2, "mediaType": manifest, "config": putJSON(config, described), "layers": descriptors,
		})
		m["platform"] = platform
		manifests = append(manifests, m)
	}
	digest := putJSON(index, object{"schemaVersion": 2, "mediaType": index, "manifests": manifests})["digest"].(string)
	tags[name] = digest
	return digest
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2::/bin:/bin/false
sys:x:3:3::/dev:/bin/false
sync:x:4:100::/bin:/bin/sync
mail:x:8:8::/var/spool/mail:/bin/false
www-data:x:33:33::/var/www:/bin/false
operator:x:37:37::/var:/bin/false
games:x:5:60:games:/usr/games:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
mail:x:8:
www-data:x:33:
operator:x:37:
games:x:60:
nogroup:x:65534:
`

// base is a root filesystem of busybox, in whose `passwd` the set-user-id bit is set.
func base(busybox string) []file {
	program, err := os.ReadFile(busybox)
	must(err)
	var files []file
	for _, name := range strings.Fields("bin etc proc run sys dev home root var var/run usr usr/bin") {
		files = append(files, dir(name))
	}
	files = append(files, file{name: "tmp/", mode: 0o1777},
		file{name: "bin/busybox", data: string(program), mode: 0o755},
		file{name: "bin/bash", data: "#!/bin/sh\nexec /bin/sh \"$@\"\n", mode: 0o755},
		file{name: "usr/bin/passwd", data: "#!/bin/sh\n", mode: 0o4755},
		file{name: "etc/passwd", data: passwd, mode: 0o644}, file{name: "etc/group", data: group, mode: 0o644})
	applets, err := exec.Command(busybox, "--list").Output()
	must(err)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" && applet != "passwd" {
			files = append(files, file{name: "bin/" + applet, link: "busybox", mode: 0o777})
		}
	}
	return files
}

func main() {
	root := base(os.Args[2])
	text := func(name, data string) file { return file{name: name, data: data, mode: 0o644} }
	busybox := image("containerd/busybox:1.36", "", root)
	image("containerd/alpine:3.14.0", "", root, []file{text("alpine", "a")})
	image("containerd/volume-copy-up:2.2", "", root,
		[]file{dir("test_dir"), text("test_dir/test_file", "test_content\n")},
		[]file{dir("test_dir2"), text("file3", strings.Repeat("x", 5000))})
	image("containerd/volume-ownership:2.1", "nobody", root,
		[]file{{name: "test_dir/", mode: 0o755, uid: 65534}, {name: "test_dir/f", data: "hi", mode: 0o644, uid: 65534}})
	image("containerd/whiteout-test:1.0", "", root,
		[]file{text("file-to-delete", "x"), dir("dir-to-delete"), text("dir-to-delete/x", "y")},
		[]file{text(".wh.file-to-delete", ""), text(".wh.dir-to-delete", "")}, []file{text("other", "o")})
	image("e2e-test-images/busybox:1.29-2", "", root, []file{text("e2e", "e")})
	image("pause:3.10.2", "", []file{text("pause", strings.Repeat("p", 4000))})
	image("pause:3.6", "", []file{text("older", strings.Repeat("p", 4000))})

	listener, err := net.Listen("tcp", os.Args[1])
	must(err)
	fmt.Println("busybox", busybox)
	must(http.Serve(listener, http.HandlerFunc(serve)))
}

// serve answers GET and HEAD of /v2/, /v2/REPOSITORY/manifests/REFERENCE and /v2/REPOSITORY/blobs/DIGEST.
func serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	parts := strings.Split(path, "/")
	if len(parts) < 3 {
		http.NotFound(w, r)
		return
	}
	reference := parts[len(parts)-1]
	digest := reference
	if tagged, ok := tags[strings.Join(parts[:len(parts)-2], "/")+":"+reference]; ok {
		digest = tagged
	}
	data, ok := blobs[digest]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", types[digest])
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
