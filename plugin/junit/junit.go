// Package junit writes test results as JUnit XML, the format that CI servers show as a
// test report. It has the parts of the format that Jenkins, GitLab and GitHub actions
// read.
//
// The format has no standard. The parts follow https://github.com/testmoapp/junitxml.
package junit

import (
	"bytes"
	"encoding/xml"
)

// Case is a test. At most one of Failure, Error and Skipped is set; without one the test
// passed.
type Case struct {
	Name    string   `xml:"name,attr"`
	Class   string   `xml:"classname,attr"`
	File    string   `xml:"file,attr,omitempty"`
	Failure *Outcome `xml:"failure,omitempty"`
	Error   *Outcome `xml:"error,omitempty"`
	Skipped *Outcome `xml:"skipped,omitempty"`
	Output  string   `xml:"system-out,omitempty"`
}

// Outcome says why a test did not pass: in one line, and in full.
type Outcome struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// counts are the numbers of tests in a suite, or in all.
type counts struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Skipped  int `xml:"skipped,attr"`
}

type suite struct {
	Name string `xml:"name,attr"`
	counts
	Cases []Case `xml:"testcase"`
}

type report struct {
	XMLName xml.Name `xml:"testsuites"`
	Name    string   `xml:"name,attr"`
	counts
	Suites []suite `xml:"testsuite"`
}

// Write returns the report of a program's tests, as one suite.
func Write(program string, cases []Case) ([]byte, error) {
	all := counts{Tests: len(cases)}
	for _, c := range cases {
		switch {
		case c.Error != nil:
			all.Errors++
		case c.Failure != nil:
			all.Failures++
		case c.Skipped != nil:
			all.Skipped++
		}
	}
	text := bytes.NewBufferString(xml.Header)
	encoder := xml.NewEncoder(text)
	encoder.Indent("", "  ")
	if err := encoder.Encode(report{Name: program, counts: all, Suites: []suite{{program, all, cases}}}); err != nil {
		return nil, err
	}
	text.WriteByte('\n')
	return text.Bytes(), nil
}
