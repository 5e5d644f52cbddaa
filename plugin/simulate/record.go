package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// RecordName and RecordKey are the ConfigMap and its key that the recorded templates read.
const RecordName, RecordKey = "oke-sign-verdicts", "verdicts.json"

// RecordedVerdict is a question and its verdict in a record.
type RecordedVerdict struct {
	Question question `json:"question"`
	Verdict  any      `json:"verdict"`
}

// question is the question of a constraint about an image. With keys, it asks for a
// verdict; without, for a report of scans.
type question struct {
	Image string   `json:"image"`
	Keys  []string `json:"keys,omitempty"`
}

// key returns the question in the form that constraints send.
func (q question) key() string {
	if q.Keys != nil {
		return gatekeeper.Question(q.Image, q.Keys)
	}
	return gatekeeper.ScanQuestion(q.Image)
}

// ReadRecord reads a record of verdicts. It rejects a record with two verdicts on one
// question.
func ReadRecord(in io.Reader, file string) (map[string]any, error) {
	text, err := cli.ReadFile(in, file)
	if err != nil {
		return nil, err
	}
	object, err := manifest.Object(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	list, ok, err := unstructured.NestedString(object.Object, "data", RecordKey)
	if err != nil || !ok || object.GetKind() != "ConfigMap" || object.GetName() != RecordName {
		return nil, &cli.HintedError{What: fmt.Errorf("%s is no ConfigMap %s with %s", file, RecordName, RecordKey), Hint: "kubectl oke-sign verdicts writes it"}
	}
	var entries []RecordedVerdict
	decoder := json.NewDecoder(strings.NewReader(list))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&entries); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", file, RecordKey, err)
	}
	if decoder.More() {
		return nil, fmt.Errorf("%s: %s: %w", file, RecordKey, errors.New("more than one list"))
	}
	verdicts := make(map[string]any, len(entries))
	for _, entry := range entries {
		key := entry.Question.key()
		if _, again := verdicts[key]; again {
			return nil, fmt.Errorf("%s: two verdicts on %s", file, key)
		}
		verdicts[key] = entry.Verdict
	}
	return verdicts, nil
}
