package lab

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"vmd/internal/testenv"
)

// writePayload writes the archive with the files of one run, all owned by
// root, and the script /lab/run.
func writePayload(name string, o Options) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	files := o.Files
	if o.Shell {
		files = append(files, File{Name: "/lab/shell"})
	}
	files = append(files, File{Name: "/lab/run", Data: []byte(o.script())})
	for _, file := range files {
		if err := file.write(w); err != nil {
			return err
		}
	}
	for _, lib := range missingLibraries(o.Files) {
		if err := (File{Name: lib, Path: lib, Mode: 0o755}).write(w); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// script is the shell script that runs the command.
func (o *Options) script() string {
	var b strings.Builder
	for _, e := range append([]string{testenv.LabVar + "=1", GuestsVar + "=/guest"}, o.Env...) {
		fmt.Fprintf(&b, "export %s\n", quote(e))
	}
	if o.Dir != "" {
		fmt.Fprintf(&b, "cd %s || exit 126\n", quote(o.Dir))
	}
	b.WriteString("exec")
	for _, word := range o.Command {
		b.WriteString(" " + quote(word))
	}
	b.WriteString("\n")
	return b.String()
}

// quote makes s one word of the shell.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (f File) write(w *tar.Writer) error {
	h := &tar.Header{
		Name: strings.TrimPrefix(path.Clean(f.Name), "/"), Mode: int64(f.Mode.Perm()),
		Size: int64(len(f.Data)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg,
	}
	if f.Mode == 0 {
		h.Mode = 0o644
	}
	// A link of the root must stay one: /bin/x is written to /usr/bin/x.
	for _, dir := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(h.Name, dir) {
			h.Name = "usr/" + h.Name
		}
	}
	if f.Path == "" {
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(f.Data)
		return err
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	h.Size = fi.Size()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(w, in, h.Size)
	return err
}

// missingLibraries returns what the run's programs are linked with: a test
// binary is static only where it was built without cgo.
func missingLibraries(files []File) []string {
	var libs []string
	seen := make(map[string]bool)
	for _, f := range files {
		if f.Path == "" || f.Mode&0o111 == 0 {
			continue
		}
		for _, lib := range libraries(f.Path) {
			if !seen[lib] {
				seen[lib] = true
				libs = append(libs, lib)
			}
		}
	}
	return libs
}

// FilesBelow returns the regular files below a folder of the host, to be put
// below the folder to of the machine. A folder that is not there has none.
func FilesBelow(from, to string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) && p == from {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		files = append(files, File{Name: path.Join(to, filepath.ToSlash(rel)), Path: p, Mode: fi.Mode().Perm()})
		return err
	})
	return files, err
}

// unpack writes the regular files of an archive from the machine below dir.
// The machine runs guests: names that lead out of dir are refused.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read results: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Clean(h.Name)
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, t); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}
