package ledger

// Ref names one document in a [Store]: a mount and a path below it, both without leading or trailing slash.
type Ref struct {
	Mount string `json:"mount"`
	Path  string `json:"path"`
}

// String returns mount/path, as a person would type it.
func (r Ref) String() string { return r.Mount + "/" + r.Path }

// Join returns the document name below r.
func (r Ref) Join(name string) Ref { return Ref{r.Mount, r.Path + "/" + name} }

// Sink is where a policy's secret is published: a record and the field of it that holds the secret.
type Sink struct {
	Ref
	Field string `json:"field"`
}
