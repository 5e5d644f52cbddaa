package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAdmissionLatency prints how long the admission of a Pod takes, with and without
// the policy. A warm image was asked about a moment ago, a cold one never.
func TestAdmissionLatency(t *testing.T) {
	const warm, cold = 200, 15
	s := newSpace(t)
	var fresh []string
	for i := range cold * (1 + 10) {
		fresh = append(fresh, s.push(t, fmt.Sprintf("image-%d", i)))
	}
	for _, images := range slices.Collect(slices.Chunk(fresh, 55)) {
		okeSign(t, append([]string{"sign", "--key", imageKey.ID}, images...)...).succeeds(t)
	}
	known := fresh[:10]
	fresh1, fresh10 := fresh[:cold], fresh[cold:]
	always := func(images []string) [][]string { return slices.Repeat([][]string{images}, warm) }
	rows := []struct {
		name     string
		enforced bool
		pods     [][]string // images of each
	}{
		{"1 image, no constraints", false, always(known[:1])},
		{"10 images, no constraints", false, always(known)},
		{"1 image, cold", true, slices.Collect(slices.Chunk(fresh1, 1))},
		{"10 images, cold", true, slices.Collect(slices.Chunk(fresh10, 10))},
		{"1 image, warm", true, always(known[:1])},
		{"10 images, warm", true, always(known)},
	}
	create := client(t).CoreV1().Pods(s.name).Create
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "admission of a Pod\trequests\tp50\tp99\t")
	for _, row := range rows {
		if row.enforced && len(s.constraints(t)) == 0 {
			s.enforce(t, standard(signedBy("", imageKey))...)
		}
		var took []time.Duration
		for _, images := range row.pods {
			pod := podWith(images...)
			began := time.Now()
			if _, err := create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		fmt.Fprintf(table, "%s\t%d\t%.1f ms\t%.1f ms\t\n", row.name, len(took), ms(p50), ms(p99))
		if p50 > 2*time.Second {
			t.Errorf("%s: half of the requests took more than %s", row.name, p50)
		}
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
}

// podWith returns a Pod with a container for each image.
func podWith(images ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-"}}
	for i, image := range images {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprintf("container-%d", i), Image: image})
	}
	return pod
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
