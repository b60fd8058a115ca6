// Writes an image of one program, as an archive that containerd and Docker import. The program needs no base image: the
// shared libraries that it is linked with are taken along. No daemon, no root.
//
//	image -name quorate/ratelimiter:0.1.0 -output limiter.tar [-user 65532] [-label name=value]… program [argument…]
package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	tag := flag.String("name", "", "the image's name and tag")
	output := flag.String("output", "", "the archive to write")
	user := flag.String("user", "65532:65532", "the ids of user and group that the program runs as")
	labels := map[string]string{}
	flag.Func("label", "a label, as `name=value`; may be given several times", func(label string) error {
		key, value, found := strings.Cut(label, "=")
		if !found || key == "" {
			return errors.New("write name=value")
		}
		labels[key] = value
		return nil
	})
	flag.Parse()
	if *tag == "" || *output == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(*tag, *output, *user, labels, flag.Arg(0), flag.Args()[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "image %s was not written: %v\n", *tag, err)
		os.Exit(1)
	}
}

func write(tag, output, user string, labels map[string]string, program string, arguments []string) error {
	reference, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	entry := "/" + filepath.Base(program)
	files := map[string]string{entry: program}
	order := []string{entry}
	libraries, err := sharedLibraries(program)
	if err != nil {
		return err
	}
	for _, library := range libraries {
		files[library] = library
		order = append(order, library)
	}
	content, err := archive(order, files)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS = "linux"
	config.Architecture = runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: append([]string{entry}, arguments...),
		User:       user,
		Labels:     labels,
		WorkingDir: "/",
	}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(output, reference, image)
}

// The files that the dynamic linker would load for the program, itself among them; none for a static one.
func sharedLibraries(program string) ([]string, error) {
	file, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("%s is not a Linux program: %w", program, err)
	}
	defer file.Close()
	if file.Section(".interp") == nil {
		return nil, nil
	}
	listed, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	var libraries []string
	for _, line := range strings.Split(string(listed), "\n") {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("%s needs a library that is not installed: %s", program, strings.TrimSpace(line))
		}
		// "libc.so.6 => /lib/…/libc.so.6 (0x…)", or the linker: "/lib64/ld-linux-x86-64.so.2 (0x…)".
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				libraries = append(libraries, field)
			}
		}
	}
	return libraries, nil
}

// One layer with the files, owned by root. It carries no times, so the same files make the same image.
func archive(order []string, files map[string]string) ([]byte, error) {
	var content bytes.Buffer
	writer := tar.NewWriter(&content)
	for _, target := range order {
		data, err := os.ReadFile(files[target])
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: strings.TrimPrefix(target, "/"), Mode: 0o755, Size: int64(len(data))}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(data); err != nil {
			return nil, err
		}
	}
	// Whoever the program runs as may write there; a volume that is put at /data takes the mode over.
	for _, name := range []string{"tmp/", "data/"} {
		directory := &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o1777}
		if err := writer.WriteHeader(directory); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}
