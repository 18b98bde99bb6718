// Lists the archives of a directory as Go's archive/tar reads them: the reference that tests/formats.rs compares with.
//
//	go run list.go DIR > listing.txt
package main

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

func list(path string) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tr := tar.NewReader(f)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			return nil, err
		}
		var xattrs []string
		for key, value := range hdr.PAXRecords {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				xattrs = append(xattrs, fmt.Sprintf("%x=%x", name, value))
			}
		}
		sort.Strings(xattrs)
		size := hdr.Size
		switch hdr.Typeflag {
		case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
			size = 0
		}
		flag := hdr.Typeflag
		if flag == 'S' {
			flag = '0'
		}
		lines = append(lines, fmt.Sprintf("%d %x %x mode=%o uid=%d gid=%d size=%d mtime=%d.%09d dev=%d:%d %v %x",
			flag, hdr.Name, hdr.Linkname, hdr.Mode&07777, hdr.Uid, hdr.Gid, size,
			hdr.ModTime.Unix(), hdr.ModTime.Nanosecond(), hdr.Devmajor, hdr.Devminor, xattrs, sum.Sum(nil)[:8]))
	}
}

func main() {
	paths, _ := filepath.Glob(filepath.Join(os.Args[1], "*.tar"))
	sort.Strings(paths)
	for _, path := range paths {
		fmt.Println("#", filepath.Base(path))
		lines, err := list(path)
		if err != nil {
			fmt.Println("error")
			continue
		}
		for _, line := range lines {
			fmt.Println(line)
		}
	}
}
