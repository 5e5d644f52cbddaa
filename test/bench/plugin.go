package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// pluginStart measures the time of a plugin command that sends no request, and the
// size of the released program.
func pluginStart(ctx context.Context, dir string) ([]figure, error) {
	const runs = 21
	path := filepath.Join(dir, "kubectl-oke_sign")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/oke-sign/oke-sign/plugin/kubectl-oke_sign")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building the plugin: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	figures := []figure{{"plugin_stripped_size", float64(info.Size()) / 1e6, "MB"}}
	for _, c := range []struct {
		name string
		args []string
	}{{"plugin_version_time", []string{"version", "--client"}}, {"plugin_help_time", []string{"--help"}}} {
		var took []time.Duration
		for range runs {
			began := time.Now()
			if err := exec.CommandContext(ctx, path, c.args...).Run(); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		figures = append(figures, figure{c.name, float64(took[runs/2].Microseconds()) / 1000, "ms"})
	}
	return figures, nil
}
