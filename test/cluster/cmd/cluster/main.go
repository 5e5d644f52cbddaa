// Command cluster starts a real Kubernetes control plane with Gatekeeper and
// oke-sign on this machine; see test/cluster/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/test/cluster"
)

func main() {
	if code, entered := cluster.Enter(); entered {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var exit exitCode
	err := command().ExecuteContext(ctx)
	if errors.As(err, &exit) {
		os.Exit(int(exit))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}

// exitCode is the exit code of a command that ran in a cluster.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A Kubernetes control plane with Gatekeeper and oke-sign, as local processes",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	name := root.PersistentFlags().String("name", "default", "name of the cluster")
	project := root.PersistentFlags().String("project", ".", "a folder in the checkout of oke-sign to run")
	// onCluster makes the RunE of a command that acts on a running cluster: by default
	// the cluster around this process, or else the one that --name names.
	onCluster := func(do func(cmd *cobra.Command, r cluster.Remote, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			if dir := os.Getenv("OKE_SIGN_CLUSTER"); dir != "" && !root.PersistentFlags().Changed("name") {
				return do(cmd, cluster.Remote{Dir: dir}, args)
			}
			dir, err := clusterDir(*name)
			if err != nil {
				return err
			}
			return do(cmd, cluster.Remote{Dir: dir}, args)
		}
	}
	root.AddCommand(up(name, project), run(project), serve(),
		&cobra.Command{
			Use: "build", Short: "Build the programs if necessary, and print their folder", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := prepare(cmd.Context(), *project, "")
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), cfg.Programs)
				return err
			},
		},
		&cobra.Command{
			Use: "down", Short: "End the cluster and remove its folder", Args: cobra.NoArgs,
			RunE: onCluster(func(cmd *cobra.Command, r cluster.Remote, _ []string) error {
				if err := r.Down(cmd.Context()); err != nil {
					return err
				}
				return errors.Join(os.RemoveAll(r.Dir), os.Remove(r.Dir+".log"))
			}),
		},
		&cobra.Command{
			Use: "kubeconfig", Short: "Print the path of the administrator's kubeconfig", Args: cobra.NoArgs,
			RunE: onCluster(func(cmd *cobra.Command, r cluster.Remote, _ []string) error {
				if _, err := r.Processes(cmd.Context()); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(r.Dir, "kubeconfig"))
				return err
			}),
		},
		&cobra.Command{
			Use: "ps", Short: "List the processes of the cluster", Args: cobra.NoArgs,
			RunE: onCluster(func(cmd *cobra.Command, r cluster.Remote, _ []string) error {
				list, err := r.Processes(cmd.Context())
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tSTATE\tPID")
				for _, p := range list {
					fmt.Fprintf(w, "%s\t%s\t%d\n", p.Name, p.State, p.PID)
				}
				return w.Flush()
			}),
		},
		&cobra.Command{
			Use: "logs NAME", Short: "Print the log of a process; ps lists the names", Args: cobra.ExactArgs(1),
			RunE: onCluster(logs),
		},
		&cobra.Command{
			Use: "exec -- COMMAND ARGS…", Short: "Run a command inside a cluster that is up", Args: cobra.MinimumNArgs(1),
			RunE: onCluster(func(_ *cobra.Command, r cluster.Remote, args []string) error {
				return r.Exec(args)
			}),
		},
	)
	for action, short := range map[string]string{
		cluster.ActionStart:  "Start a stopped process",
		cluster.ActionStop:   "Send SIGTERM to a process, and wait until it has ended",
		cluster.ActionKill:   "Send SIGKILL to a process",
		cluster.ActionPause:  "Suspend a process, as if its machine hung",
		cluster.ActionResume: "Resume a paused process",
	} {
		root.AddCommand(&cobra.Command{
			Use: action + " NAME…", Short: short, Args: cobra.MinimumNArgs(1),
			RunE: onCluster(func(cmd *cobra.Command, r cluster.Remote, names []string) error {
				for _, name := range names {
					if err := r.Do(cmd.Context(), action, name); err != nil {
						return err
					}
				}
				return nil
			}),
		})
	}
	return root
}

// clusterDir returns the folder of the cluster of that name. The path is short, because
// it holds sockets.
func clusterDir(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if name == "" || strings.ContainsAny(name, "/.") {
		return "", fmt.Errorf("--name %q: must not be empty or contain / or .", name)
	}
	return filepath.Join(cache, "oke-sign", "clusters", name), nil
}

// prepare builds the programs and returns the configuration.
func prepare(ctx context.Context, project, dir string) (cluster.Config, error) {
	root, err := cluster.FindProject(project)
	if err != nil {
		return cluster.Config{}, err
	}
	programs, err := cluster.Build(ctx, filepath.Join(root, "test", "cluster"), os.Stderr)
	if err != nil {
		return cluster.Config{}, err
	}
	return cluster.Config{Dir: dir, Programs: programs, Project: root}, nil
}

func up(name, project *string) *cobra.Command {
	return &cobra.Command{
		Use: "up", Short: "Start a cluster and leave it running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := clusterDir(*name)
			if err != nil {
				return err
			}
			if _, err := (cluster.Remote{Dir: dir}).Processes(cmd.Context()); err == nil {
				return fmt.Errorf("a cluster named %s runs already; `cluster down --name %[1]s` ends it", *name)
			}
			if err := os.RemoveAll(dir); err != nil { // left by a killed cluster
				return err
			}
			if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
				return err
			}
			if _, err := prepare(cmd.Context(), *project, dir); err != nil {
				return err
			}
			if err := detach(cmd.Context(), dir, *project); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), usage, dir, *name)
			return nil
		},
	}
}

const usage = `
The cluster is up. To use it:

  export KUBECONFIG=%[1]s/kubeconfig
  . %[1]s/oci.env    # OCI, emulated: for kubectl oke-sign

The cluster admits every image so far. To admit only images signed with image-key:

  kubectl apply -f %[1]s/policy.yaml
  kubectl create deployment unsigned --image=iad.ocir.io/idwpqivumvev/scan-test:latest
  kubectl get events                  # shows why it has no Pods

  bin/kubectl-oke_sign sign --key image-key --resolve iad.ocir.io/idwpqivumvev/scan-test:latest
  kubectl create deployment signed --replicas=3 --image=IMAGE@sha256:…    # as signed

To look at it, and to end it:

  bin/cluster ps --name %[2]s
  bin/cluster logs --name %[2]s kube-apiserver
  bin/cluster down --name %[2]s
`

// detach starts a background process that holds the cluster. It prints that process's
// output and waits until the cluster is ready.
func detach(ctx context.Context, dir, project string) error {
	logFile := dir + ".log"
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	holder := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe", "serve", "--project", project, dir)
	holder.Stdout, holder.Stderr = log, log
	holder.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := holder.Start(); err != nil {
		return err
	}
	var holderErr error
	ended := make(chan struct{})
	go func() {
		holderErr = holder.Wait()
		close(ended)
	}()
	show, err := os.Open(logFile)
	if err != nil {
		return err
	}
	defer show.Close()
	for {
		if _, err := io.Copy(os.Stderr, show); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			err := holder.Process.Signal(syscall.SIGTERM)
			<-ended
			return errors.Join(errors.New("interrupted"), err, os.RemoveAll(dir), os.Remove(logFile))
		case <-ended:
			_, _ = io.Copy(os.Stderr, show)
			return errors.Join(fmt.Errorf("the cluster did not come up; its logs are in %s", filepath.Join(dir, "log")), holderErr)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serve is the command that detach starts.
func serve() *cobra.Command {
	return &cobra.Command{
		Use: "serve DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := cmd.Flags().GetString("project")
			if err != nil {
				return err
			}
			cfg, err := prepare(cmd.Context(), project, args[0])
			if err != nil {
				return err
			}
			return runToEnd(cmd.Context(), cfg)
		},
	}
}

func runToEnd(ctx context.Context, cfg cluster.Config) error {
	c, err := cluster.Start(ctx, cfg)
	if err != nil {
		return err
	}
	code, err := c.Wait()
	if err == nil && code != 0 {
		err = exitCode(code)
	}
	return err
}

func run(project *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND ARGS…",
		Short: "Run a command inside a new cluster, and end the cluster with it",
		Long: "Starts a cluster, runs the command inside it, and ends the cluster. The command has\n" +
			"KUBECONFIG set, and kubectl, helm and oke-sign on its PATH. The exit code is the\n" +
			"command's.",
		Args: cobra.MinimumNArgs(1),
	}
	logs := cmd.Flags().String("logs", "", "folder to copy the logs to")
	bare := cmd.Flags().Bool("bare", false, "without Gatekeeper and oke-sign")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scratch, err := os.MkdirTemp("", "cluster-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
		cfg, err := prepare(cmd.Context(), *project, filepath.Join(scratch, "c"))
		if err != nil {
			return err
		}
		cfg.Command, cfg.Bare = args, *bare
		err = runToEnd(cmd.Context(), cfg)
		if *logs != "" {
			if err := os.RemoveAll(*logs); err != nil {
				return err
			}
			err = errors.Join(err, os.CopyFS(*logs, os.DirFS(filepath.Join(cfg.Dir, "log"))))
		}
		return err
	}
	return cmd
}

func logs(cmd *cobra.Command, r cluster.Remote, args []string) error {
	list, err := r.Processes(cmd.Context())
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Name == args[0] {
			log, err := os.Open(p.Log)
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(cmd.OutOrStdout(), log)
			return err
		}
	}
	return fmt.Errorf("no process is named %s", args[0])
}
