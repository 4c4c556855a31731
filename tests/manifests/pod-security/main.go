// Checks the workloads of a file, one JSON object a line, against the Pod Security Standard `restricted`, by the library of
// Kubernetes' own admission, and prints a line for each that it would refuse.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

type workload struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Template *corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}

func main() {
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(path string) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1024*1024)
	for lines.Scan() {
		var object workload
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			return err
		}
		template := object.Spec.Template
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec))
		if !result.Allowed {
			fmt.Printf("%s %s: %s\n", object.Kind, object.Name, result.ForbiddenDetail())
		}
	}
	return lines.Err()
}
