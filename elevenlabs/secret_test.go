package elevenlabs

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/rekeyd/rekeyd/internal/secret"
)

const canary = "sk_canary_5ecret+/ \"quoted\""

// holder is what embeds a Secret by accident: exported, hidden, in lists and maps.
type holder struct {
	Public  secret.Secret
	private secret.Secret
	Pointer *secret.Secret
	List    []secret.Secret
	Map     map[string]secret.Secret
	Any     any
}

func newHolder() holder {
	s := secret.New(canary)
	return holder{s, s, &s, []secret.Secret{s}, map[string]secret.Secret{"k": s}, CreatedKey{ID: "k", Secret: s}}
}

func TestNothingPrintsASecret(t *testing.T) {
	r := new(secret.Redactor)
	r.Add(secret.New(canary))
	c := newClient(t, "http://127.0.0.1", func(o *Options) { o.Redactor = r })
	h := newHolder()
	if h.private.Reveal() != canary {
		t.Fatal("Reveal does not")
	}
	var out bytes.Buffer
	for _, v := range []any{h.Public, &h.Public, h, &h, h.Any, r, c, *c} {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %d %x %X %o %c %U %t %e %p %20.3s %w") {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(handler).Info("m", "v", v, "list", []any{v}, slog.Group("g", "v", v))
		}
		if text, err := json.MarshalIndent(v, "", " "); err == nil {
			out.Write(text)
		}
		if text, err := xml.Marshal(v); err == nil {
			out.Write(text)
		}
		_ = gob.NewEncoder(&out).Encode(v) // refuses or writes no bytes of it
	}
	text, err := yaml.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	jsonText, err := json.Marshal(h)
	if err != nil || !strings.Contains(string(jsonText), `"Public":"[secret]"`) {
		t.Errorf("json: %s, %v", jsonText, err)
	}
	if strings.Contains(out.String(), "canary") || strings.Contains(out.String(), "5ecret") || strings.Contains(out.String(), fmt.Sprintf("%x", canary[:9])) {
		t.Error("it is in the output")
	}
	if !strings.Contains(out.String(), secret.Placeholder) {
		t.Error("no placeholder in the output")
	}
}

// A panic prints its value without asking fmt.
func TestPanicsPrintNoSecret(t *testing.T) {
	if os.Getenv("PANIC_WITH_A_SECRET") != "" {
		if os.Getenv("PANIC_WITH_A_SECRET") == "bare" {
			panic(secret.New(canary))
		}
		panic(newHolder())
	}
	for _, how := range []string{"bare", "in a struct"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPanicsPrintNoSecret$")
		cmd.Env = append(os.Environ(), "PANIC_WITH_A_SECRET="+how)
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("panic:")) || bytes.Contains(out, []byte("canary")) {
			t.Errorf("%s: %v\n%s", how, err, out)
		}
	}
}

func TestErrorsHoldNoSecret(t *testing.T) {
	echo := `{"detail":{"code":"` + adminKey + `","message":"bad key ` + adminKey + ` or sk_new_from_create","request_id":"` + adminKey + `"}}`
	r := new(secret.Redactor)
	r.Add(secret.New("sk_new_from_create"))
	c := newClient(t, newRemote(t, 400, nil, echo).URL, func(o *Options) { o.Redactor = r })
	_, err := c.CreateKey(t.Context(), "a", "n", Settings{})
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %q", err, err, err, err)
	slog.New(slog.NewJSONHandler(&out, nil)).Error("m", "error", err)
	text, _ := json.Marshal(err)
	out.Write(text)
	if strings.Contains(out.String(), adminKey) || strings.Contains(out.String(), "sk_new") || !strings.Contains(out.String(), secret.Placeholder) {
		t.Errorf("%s", out.String())
	}
	if got := r.Cut(adminKey); got != adminKey {
		t.Error("the admin key is held after the request")
	}
}

func TestCut(t *testing.T) {
	r := new(secret.Redactor)
	for _, s := range []string{canary, "abcdef", "defghi", "short", "aXaXaX", ""} {
		r.Add(secret.New(s))
	}
	text, _ := json.Marshal(canary)
	for in, want := range map[string]string{
		"":                                       "",
		"nothing of ours":                        "nothing of ours",
		"too short to hold":                      "too short to hold",
		"a " + canary + "b":                      "a [secret]b",
		"q=" + url.QueryEscape(canary) + "&":     "q=[secret]&",
		"/" + url.PathEscape(canary) + "/":       "/[secret]/",
		"j " + string(text[1:len(text)-1]) + ".": "j [secret].",
		base64.StdEncoding.EncodeToString([]byte(canary)) + "|": "[secret]" + strings.Repeat("=", (3-len(canary)%3)%3) + "|",
		base64.RawURLEncoding.EncodeToString([]byte(canary)):    "[secret]",
		"xabcdefghix":  "x[secret]x", // overlapping
		"abcdefabcdef": "[secret][secret]",
		"aXaXaXaXaX":   "[secret]", // overlapping itself
	} {
		if got := r.Cut(in); got != want {
			t.Errorf("Cut(%q) = %q, want %q", in, got, want)
		}
	}
	var none *secret.Redactor
	none.Add(secret.New("abcdef"))()
	if none.Cut("abcdef") != "abcdef" {
		t.Error("a nil redactor cuts")
	}
}
