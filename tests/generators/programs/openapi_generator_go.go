// Command match uses the service by openapi-generator's client in Go: the address, a collection, a folder of images,
// their origin.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	made "github.com/GIT_USER_ID/GIT_REPO_ID"
)

var (
	address, collection, images, origin = os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	background                          = context.Background()
	client                              *made.APIClient
)

func must[T any](value T, err error) T {
	var failed *made.GenericOpenAPIError
	if errors.As(err, &failed) {
		log.Fatal(err, string(failed.Body()))
	}
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func file(name string) *os.File {
	return must(os.Open(filepath.Join(images, name)))
}

func add(request made.ApiAddRequest) *made.AddReply {
	reply, _, err := request.Collection(collection).Execute()
	return must(reply, err)
}

// ended follows a task to its end.
func ended(id string) string {
	for {
		reply, _, err := client.TasksAPI.Task(background, id).Execute()
		state := must(reply, err).Result[0].State
		if state != "pending" && state != "running" {
			return state
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// batchAtItsEnd follows a batch to its end.
func batchAtItsEnd(id string) []any {
	for {
		reply, _, err := client.BatchesAPI.OneBatch(background, id).Execute()
		batch := must(reply, err).Result[0]
		if batch.State != "running" {
			return []any{batch.State, batch.Succeeded}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func search() made.ApiSearchRequest {
	return client.SearchingAPI.Search(background).Collection(collection)
}

func find(album string, request made.ApiSearchRequest) []string {
	reply, _, err := request.Limit(1).Filter(map[string]string{"album": album}).Execute()
	filepaths := []string{}
	for _, match := range must(reply, err).Result {
		filepaths = append(filepaths, match.Filepath)
	}
	return filepaths
}

func codeOf(err error) string {
	var failed *made.GenericOpenAPIError
	if !errors.As(err, &failed) {
		log.Fatal("no failure: ", err)
	}
	failure, _ := failed.Model().(made.Failure)
	return failure.Code
}

func main() {
	configuration := made.NewConfiguration()
	configuration.Servers = made.ServerConfigurations{{URL: address}}
	client = made.NewAPIClient(configuration)
	adding := client.AddingAPI

	byFile := add(adding.Add(background).Image(file("chelsea.jpg")).Filepath("file").Metadata(`{"album": "cats"}`).Wait(60))
	byURL := add(adding.Add(background).Url(origin + "/coffee.jpg").Filepath("url").Metadata(`{"album": "drinks"}`))
	states := []string{byFile.Task.State, ended(byURL.Task.Id)}
	filepaths := []string{"a, 1", "a, 2"}
	files := []*os.File{file("rocket.jpg"), file("moose.jpg")}
	many := add(adding.Add(background).Filepaths(filepaths).Images(files).XBatchID(collection + "-batch"))
	outcomes := []string{}
	for _, outcome := range many.Result {
		outcomes = append(outcomes, outcome.Status)
	}
	_, _, unknown := search().Filepath("unknown").Execute()
	where := map[string]string{"album": "cats"}
	count, _, err := client.StoredImagesAPI.CountPost(background).CountBody(made.CountBody{Collection: &collection, Filter: where}).Execute()
	answers := map[string]any{
		"states":           states,
		"outcomes":         outcomes,
		"batch":            batchAtItsEnd(collection + "-batch"),
		"by_file":          find("cats", search().Image(file("chelsea.jpg"))),
		"by_url":           find("drinks", search().Url(origin+"/coffee.jpg")),
		"by_filepath":      find("cats", search().Filepath("file")),
		"in_another_album": find("drinks", search().Filepath("file")),
		"code":             codeOf(unknown),
		"count":            must(count, err).Result[0],
	}
	_, _, err = client.StoredImagesAPI.Delete(background).DeleteBody(made.DeleteBody{Collection: &collection, Filepaths: filepaths}).Execute()
	must("", err)
	listed, _, err := client.StoredImagesAPI.List(background).Collection(collection).Filter(where).Limit(1).Execute()
	answers["list"] = must(listed, err).Result
	fmt.Println(string(must(json.Marshal(answers))))
}
