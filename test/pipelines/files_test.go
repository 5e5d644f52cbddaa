package pipelines

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const documents = "../../docs/ci"

// step is one process that a service runs.
type step struct {
	name   string
	env    map[string]string
	shell  []string // command before the script's file; empty for a program with arguments
	script string
	args   []string
	output string // the step's id, by which later steps read its outputs
}

// blank matches a name that a person fills in.
var blank = regexp.MustCompile(`<[A-Za-z][A-Za-z0-9 ,._-]*>`)

// fill reads a file and replaces its blanks with values. A blank without a value fails
// the test.
func fill(t *testing.T, file string, values map[string]string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(documents, file))
	if err != nil {
		t.Fatal(err)
	}
	return blank.ReplaceAllStringFunc(string(text), func(name string) string {
		if name == "<angle brackets>" {
			return name
		}
		value, ok := values[strings.Trim(name, "<>")]
		if !ok {
			t.Errorf("%s: no value for %s", file, name)
		}
		return value
	})
}

func parse(t *testing.T, text string, into ...any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for _, one := range into {
		if err := decoder.Decode(one); err != nil {
			t.Fatal(err)
		}
	}
	var more any
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		t.Fatalf("want %d documents and then the end, got %v", len(into), err)
	}
}

var bash = []string{"bash"}

// devops reads a build or command specification of OCI DevOps.
func devops(t *testing.T, text string) []step {
	t.Helper()
	var spec struct {
		Version, Component, Shell string
		FailImmediatelyOnError    bool `yaml:"failImmediatelyOnError"`
		Env                       struct{ Variables map[string]string }
		Steps                     []struct{ Type, Name, Command string }
	}
	parse(t, text, &spec)
	if spec.Shell != "bash" || spec.Version != "0.1" || !spec.FailImmediatelyOnError || spec.Component != "build" && spec.Component != "command" {
		t.Errorf("got %+v", spec)
	}
	var steps []step
	for _, s := range spec.Steps {
		if s.Type != "Command" {
			t.Errorf("a step of type %s", s.Type)
		}
		steps = append(steps, step{name: s.Name, env: spec.Env.Variables, shell: bash, script: s.Command})
	}
	return steps
}

// github reads the composite action as the workflow uses it.
func github(t *testing.T, action, workflow string) []step {
	t.Helper()
	var used struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			Steps []struct {
				Uses string
				With map[string]string
			}
		}
	}
	parse(t, workflow, &used)
	var made struct {
		Inputs map[string]struct {
			Required bool
			Default  string
		}
		Runs struct {
			Using string
			Steps []struct {
				Name, ID, Shell, Run string
				Env                  map[string]string
			}
		}
	}
	parse(t, action, &made)
	if made.Runs.Using != "composite" || used.Permissions["id-token"] != "write" {
		t.Errorf("not a composite action, or the job lacks the permission id-token: %+v", used.Permissions)
	}
	with := map[string]string{"github.sha": "0123456789abcdef0123456789abcdef01234567"}
	for _, s := range used.Jobs["image"].Steps {
		for name, value := range s.With {
			if _, known := made.Inputs[name]; !known {
				t.Errorf("the workflow passes %s, which is not an input of the action", name)
			}
			with["inputs."+name] = value
		}
	}
	for name, input := range made.Inputs {
		if _, given := with["inputs."+name]; !given && input.Required {
			t.Errorf("the workflow does not pass %s", name)
		} else if !given {
			with["inputs."+name] = input.Default
		}
	}
	var steps []step
	for _, s := range made.Runs.Steps {
		if strings.Contains(s.Run, "${{") {
			t.Errorf("%s: an expression in a script lets a name run commands", s.Name)
		}
		env := map[string]string{}
		for name, value := range s.Env {
			env[name] = expand(value, with)
		}
		steps = append(steps, step{name: s.Name, env: env, shell: []string{"bash", "--noprofile", "--norc", "-eo", "pipefail"}, script: s.Run, output: s.ID})
	}
	return steps
}

var expression = regexp.MustCompile(`\$\{\{ *([A-Za-z0-9._-]+) *\}\}`)

// expand replaces a service's expressions with values, twice, because values can
// contain expressions. An unknown expression stays.
func expand(text string, values map[string]string) string {
	for range 2 {
		text = expression.ReplaceAllStringFunc(text, func(e string) string {
			if value, ok := values[expression.FindStringSubmatch(e)[1]]; ok {
				return value
			}
			return e
		})
	}
	return text
}

// gitlab reads a job. Its before_script and its script share one shell.
func gitlab(t *testing.T, text string) []step {
	t.Helper()
	type job struct {
		Variables    map[string]string
		IDTokens     map[string]struct{ Aud string } `yaml:"id_tokens"`
		BeforeScript []string                        `yaml:"before_script"`
		Script       []string
	}
	var jobs map[string]job
	parse(t, text, &jobs)
	j := jobs["image"]
	if j.IDTokens["OCI_OIDC_TOKEN"].Aud == "" {
		t.Error("the job gets no OIDC token")
	}
	return []step{{name: "image", env: j.Variables, shell: []string{"bash", "-eo", "pipefail"}, script: strings.Join(append(j.BeforeScript, j.Script...), "\n")}}
}

var (
	groovyEnv = regexp.MustCompile(`(?m)^    ([A-Z0-9_]+) = '([^']*)'$`)
	groovySh  = regexp.MustCompile(`(?s)sh '''(.*?)'''`)
)

// jenkins reads the environment and the sh steps of a declarative pipeline.
func jenkins(t *testing.T, text string) []step {
	t.Helper()
	env := map[string]string{}
	for _, m := range groovyEnv.FindAllStringSubmatch(text, -1) {
		env[m[1]] = m[2]
	}
	var steps []step
	for _, m := range groovySh.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], "#!/bin/bash\n") || strings.Contains(m[1], `\`) {
			t.Errorf("not a bash script, or Groovy would change it: %.40s", m[1])
		}
		steps = append(steps, step{name: "sh", env: env, shell: bash, script: m[1]})
	}
	if len(steps) != strings.Count(text, "sh '") || len(env) == 0 {
		t.Errorf("read %d steps of %d, and %d variables", len(steps), strings.Count(text, "sh '"), len(env))
	}
	return steps
}

// tekton reads a Task, and the TaskRun with its parameters.
func tekton(t *testing.T, text string) []step {
	t.Helper()
	type value struct{ Name, Value string }
	var task struct {
		Spec struct {
			Params       []value
			StepTemplate struct {
				Image string
				Env   []value
			} `yaml:"stepTemplate"`
			Steps []struct {
				Name, Image, Script string
				Command, Args       []string
			}
		}
	}
	var run struct{ Spec struct{ Params []value } }
	parse(t, text, &task, &run)
	values := []string{"$(workspaces.source.path)", "."}
	for _, p := range run.Spec.Params {
		values = append(values, "$(params."+p.Name+")", p.Value)
	}
	if len(run.Spec.Params) != len(task.Spec.Params) || !strings.HasPrefix(task.Spec.StepTemplate.Image, "ghcr.io/oke-sign/kubectl-oke-sign:") {
		t.Errorf("the run passes %d of %d parameters, and the image is %s", len(run.Spec.Params), len(task.Spec.Params), task.Spec.StepTemplate.Image)
	}
	replace := strings.NewReplacer(values...).Replace
	env := map[string]string{}
	for _, v := range task.Spec.StepTemplate.Env {
		env[v.Name] = replace(v.Value)
	}
	var steps []step
	for _, s := range task.Spec.Steps {
		if s.Image != "" || s.Script != "" || s.Command != nil {
			t.Errorf("%s: want arguments only, because the image has an entry point and no shell", s.Name)
		}
		var args []string
		for _, a := range s.Args {
			args = append(args, replace(a))
		}
		steps = append(steps, step{name: s.Name, env: env, args: args})
	}
	return steps
}

// cloudShell reads the lines that a person types. An interactive shell goes on after a
// failure.
func cloudShell(t *testing.T, text string) []step {
	t.Helper()
	if n := bytes.Count([]byte(text), []byte("\n")); n != 5 {
		t.Errorf("%d lines, want five", n)
	}
	return []step{{name: "Cloud Shell", shell: bash, script: text}}
}
