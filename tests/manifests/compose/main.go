// Loads compose files, separated by colons as in COMPOSE_FILE, as compose itself does, and prints the project as JSON: all
// services, or only those that are named behind the files, as `up --no-deps` starts them.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if err := load(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(files string, services []string) error {
	options, err := cli.NewProjectOptions(strings.Split(files, ":"), cli.WithOsEnv)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	if len(services) > 0 {
		project, err = project.WithSelectedServices(services, types.IgnoreDependencies)
		if err != nil {
			return err
		}
	}
	text, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}
