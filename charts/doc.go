// Package charts holds the Helm charts: the provider with the ConstraintTemplates,
// and the constraints. There is no code here but what tests them and makes the
// generated parts, the templates' copies and the tables of the READMEs.
package charts

//go:generate go run ./internal/generate .
