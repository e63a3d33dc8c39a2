// Command count prints how many lines of code the product has, by package: lines on which a token of Go begins, so
// neither blank lines nor comments, and neither tests nor what only tests, the demo and the repository's tools need. It
// fails if they are too many.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// product are the folders whose code ends up in the rekeyd binary or, from reader, in others' programs; apart from those in support.
func product() []string {
	return []string{"cmd/rekeyd", "config", "elevenlabs", "internal", "reader", "rotator", "sinks"}
}

// support are folders of packages that only tests and tools link, whose code is not counted.
func support() []string {
	return []string{
		"elevenlabs/elevensim", "internal/archtest", "internal/bench", "internal/charttest", "internal/doctest", "internal/e2e",
		"internal/hostile", "internal/hostiletest", "internal/kubetest", "internal/localtest", "internal/memkv", "internal/model", "internal/mutants",
		"internal/process", "internal/simulation", "internal/tools", "internal/torture", "internal/vaulttest",
	}
}

// most is how many lines the product may have. A change that needs more raises it, and its message says why.
const most = 24_850

func main() {
	counts := map[string]int{}
	for _, dir := range product() {
		if err := count(os.DirFS("."), dir, counts); err != nil {
			fmt.Fprintln(os.Stderr, "count:", err)
			os.Exit(1)
		}
	}
	sum := 0
	for _, pkg := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("%-20s %6d\n", pkg, counts[pkg])
		sum += counts[pkg]
	}
	fmt.Printf("%-20s %6d\n", "sum", sum)
	if sum > most {
		fmt.Fprintf(os.Stderr, "count: the product has more than %d lines: take some out, or raise the bound in internal/tools/count and say why\n", most)
		os.Exit(1)
	}
}

// count adds the lines of each package at or below dir.
func count(tree fs.FS, dir string, counts map[string]int) error {
	return fs.WalkDir(tree, dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (slices.Contains(support(), path) || entry.Name() == "testdata"):
			return fs.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		n, err := lines(source)
		counts[filepath.Dir(path)] += n
		return err
	})
}

// lines returns the number of lines on which a token begins; none in a generated file.
func lines(source []byte) (int, error) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, "", source, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil || ast.IsGenerated(parsed) {
		return 0, err
	}
	file := set.AddFile("", -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, 0)
	found := map[int]bool{}
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return len(found), nil
		}
		if tok != token.SEMICOLON || literal == ";" { // not one that the scanner put in
			found[file.Line(pos)] = true
		}
	}
}
