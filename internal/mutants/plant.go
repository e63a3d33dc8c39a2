package main

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is one small mistake, made only while the environment variable MUTANT has its id.
type mutant struct {
	id   int
	file string
	at   int // its line
	what string
}

func (m mutant) line(v verdict) string { return fmt.Sprintf("%s:%d: %s: %s", m.file, m.at, v, m.what) }

// switches is what the planted code of each package calls.
const switches = `package %s

import (
	"os"
	"strconv"
	"sync"
)

var (
	mutantID    = func() int { id, _ := strconv.Atoi(os.Getenv("MUTANT")); return id }()
	mutantTrace = func() *os.File { f, _ := os.OpenFile(os.Getenv("MUTANT_TRACE"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); return f }()
	mutantSeen  sync.Map
)

func mutantOn(id int) bool {
	if mutantTrace != nil {
		if _, seen := mutantSeen.LoadOrStore(id, true); !seen {
			_, _ = mutantTrace.WriteString(strconv.Itoa(id) + "\n")
		}
	}
	return id == mutantID
}

func mutantNot(id int, b bool) bool         { return b != mutantOn(id) }
func mutantIs(id int, as bool, b bool) bool { if mutantOn(id) { return as }; return b }
`

// plant writes the files at the places, with every mutant in them, into a folder. It says what the mutants are, and in which
// folders.
func plant(places []string, work string) (mutants []mutant, folders []string, err error) {
	g := garden{fset: token.NewFileSet()}
	replace := map[string]string{}
	for _, place := range places {
		names := []string{place}
		if !strings.HasSuffix(place, ".go") {
			if names, err = filepath.Glob(filepath.Join(place, "*.go")); err != nil {
				return nil, nil, err
			}
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(g.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, nil, err
			}
			g.plant(f, filepath.ToSlash(filepath.Clean(name)))
			if err := g.write(f, name, work, replace); err != nil {
				return nil, nil, err
			}
			dir := filepath.Dir(name)
			if slices.Contains(folders, dir) {
				continue
			}
			folders = append(folders, dir)
			helper := fmt.Appendf(nil, switches, f.Name.Name)
			if err := write(helper, filepath.Join(dir, "mutant_switches.go"), work, replace); err != nil {
				return nil, nil, err
			}
		}
	}
	if len(g.mutants) == 0 {
		return nil, nil, fmt.Errorf("%s: no mistake can be made there", strings.Join(places, ", "))
	}
	return g.mutants, folders, writeOverlay(work, replace)
}

// write writes text into the work folder, for the compiler to take in place of the file of this name.
func write(text []byte, name, work string, replace map[string]string) error {
	place, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	replace[place] = filepath.Join(work, fmt.Sprint(len(replace), ".go"))
	return os.WriteFile(replace[place], text, 0o600)
}

// garden is where mutants are planted.
type garden struct {
	fset    *token.FileSet
	mutants []mutant
	file    string
}

func (g *garden) write(f *ast.File, name, work string, replace map[string]string) error {
	f.Comments = nil // they have lost their places
	var text strings.Builder
	if err := format.Node(&text, g.fset, f); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return write([]byte(text.String()), name, work, replace)
}

func (g *garden) add(at ast.Node, what string) int {
	id := len(g.mutants) + 1
	var text strings.Builder
	if err := format.Node(&text, g.fset, at); err != nil {
		text.WriteString("?")
	}
	said, _, _ := strings.Cut(text.String(), "\n")
	g.mutants = append(g.mutants, mutant{id, g.file, g.fset.Position(at.Pos()).Line, what + ": " + said})
	return id
}

func (g *garden) plant(f *ast.File, name string) {
	g.file = name
	var nodes []ast.Node // all of them before the first is changed: what is planted gets no mutants
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			ast.Inspect(fn.Body, func(n ast.Node) bool { nodes = append(nodes, n); return true })
		}
	}
	for _, n := range nodes {
		g.change(n)
	}
}

// change plants what can go wrong right below one node.
func (g *garden) change(n ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		n.Cond = g.not(n.Cond)
	case *ast.BinaryExpr:
		g.operands(n)
	case *ast.ReturnStmt:
		g.conditions(n.Results)
	case *ast.BlockStmt:
		g.statements(n.List)
	case *ast.CommClause:
		g.statements(n.Body)
	case *ast.CaseClause:
		g.conditions(n.List)
		g.statements(n.Body)
	}
}

// conditions turns those of the expressions round that are conditions.
func (g *garden) conditions(list []ast.Expr) {
	for i, e := range list {
		if isCondition(e) {
			list[i] = g.not(e)
		}
	}
}

// statements makes each statement of a list one that may be left out, unless it declares something or ends the function.
func (g *garden) statements(list []ast.Stmt) {
	for i, s := range list {
		switch n := s.(type) {
		case *ast.ExprStmt, *ast.IncDecStmt:
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE || isBlank(n) {
				continue
			}
		default:
			continue
		}
		on := &ast.CallExpr{Fun: ast.NewIdent("mutantOn"), Args: []ast.Expr{number(g.add(s, "statement left out"))}}
		list[i] = &ast.IfStmt{Cond: &ast.UnaryExpr{Op: token.NOT, X: on}, Body: &ast.BlockStmt{List: []ast.Stmt{s}}}
	}
}

// operands leaves out one side of an "and" or an "or".
func (g *garden) operands(n *ast.BinaryExpr) {
	as := "true"
	switch n.Op {
	case token.LOR:
		as = "false"
	case token.LAND:
	default:
		return
	}
	is := func(e ast.Expr) ast.Expr {
		id := g.add(e, "operand left out")
		return &ast.CallExpr{Fun: ast.NewIdent("mutantIs"), Args: []ast.Expr{number(id), ast.NewIdent(as), e}}
	}
	n.X, n.Y = is(n.X), is(n.Y)
}

func (g *garden) not(e ast.Expr) ast.Expr {
	id := g.add(e, "condition turned round")
	return &ast.CallExpr{Fun: ast.NewIdent("mutantNot"), Args: []ast.Expr{number(id), e}}
}

func number(n int) ast.Expr { return &ast.BasicLit{Kind: token.INT, Value: fmt.Sprint(n)} }

// isCondition reports an expression that is a bool by its form; without types, a plain name or call is not.
func isCondition(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return slices.Contains([]token.Token{token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ, token.LAND, token.LOR}, e.Op)
	case *ast.UnaryExpr:
		return e.Op == token.NOT
	case *ast.ParenExpr:
		return isCondition(e.X)
	}
	return false
}

func isBlank(n *ast.AssignStmt) bool {
	for _, e := range n.Lhs {
		if id, ok := e.(*ast.Ident); !ok || id.Name != "_" {
			return false
		}
	}
	return true
}
