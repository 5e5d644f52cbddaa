// Package charts has two Helm charts: oke-sign with the provider and the ConstraintTemplates, and
// oke-sign-policy with the constraints. Its code tests the charts, and generates the copies of
// the templates and the tables in the READMEs.
package charts

//go:generate go run ./internal/generate .
