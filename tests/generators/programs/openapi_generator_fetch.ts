/* Use the service by openapi-generator's client typescript-fetch: the address, a collection, the origin of images. */

import { AddingApi, BatchesApi, Configuration, ResponseError, SearchingApi, StoredImagesApi, TasksApi } from "./made";
import type { AddRequest, Failure, SearchRequest, Task } from "./made";

declare const process: { argv: string[] };

const [address, collection, origin] = process.argv.slice(2);
const configuration = new Configuration({ basePath: address });
const adding = new AddingApi(configuration);
const searching = new SearchingApi(configuration);
const storedImages = new StoredImagesApi(configuration);
const batches = new BatchesApi(configuration);
const tasks = new TasksApi(configuration);

async function file(name: string): Promise<Blob> {
  return (await fetch(`${origin}/${name}`)).blob();
}

async function addImage(fields: AddRequest): Promise<Task> {
  const reply = await adding.add({ collection, ...fields });
  if (!reply.task) throw new Error("no task");
  return reply.task;
}

/** Follow a task to its end. */
async function ended(id: string): Promise<string> {
  for (;;) {
    const { state } = (await tasks.task({ id })).result[0];
    if (state !== "pending" && state !== "running") return state;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Follow a batch to its end. */
async function batchAtItsEnd(id: string): Promise<[string, number]> {
  for (;;) {
    const { state, succeeded } = (await batches.oneBatch({ id })).result[0];
    if (state !== "running") return [state, succeeded];
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function find(album: string, query: SearchRequest): Promise<string[]> {
  const reply = await searching.search({ collection, limit: 1, filter: { album }, ...query });
  return reply.result.map((match) => match.filepath);
}

async function codeOfUnknownFilepath(): Promise<string> {
  try {
    await searching.search({ collection, filepath: "unknown" });
  } catch (error) {
    if (error instanceof ResponseError) return ((await error.response.json()) as Failure).code;
    throw error;
  }
  throw new Error("no failure");
}

async function main(): Promise<void> {
  const cats = JSON.stringify({ album: "cats" });
  const drinks = JSON.stringify({ album: "drinks" });
  const byFile = await addImage({ image: await file("chelsea.jpg"), filepath: "file", metadata: cats, wait: 60 });
  const byUrl = await addImage({ url: `${origin}/coffee.jpg`, filepath: "url", metadata: drinks });
  const filepaths = ["a, 1", "a, 2"];
  const images = [await file("rocket.jpg"), await file("moose.jpg")];
  const states = [byFile.state, await ended(byUrl.id)];
  const many = await adding.add({ collection, filepaths, images, xBatchID: `${collection}-batch` });
  const answers = {
    states,
    outcomes: many.result.map((outcome) => outcome.status),
    batch: await batchAtItsEnd(`${collection}-batch`),
    by_file: await find("cats", { image: await file("chelsea.jpg") }),
    by_url: await find("drinks", { url: `${origin}/coffee.jpg` }),
    by_filepath: await find("cats", { filepath: "file" }),
    in_another_album: await find("drinks", { filepath: "file" }),
    code: await codeOfUnknownFilepath(),
    count: (await storedImages.countPost({ countBody: { collection, filter: { album: "cats" } } })).result[0],
  };
  await storedImages._delete({ deleteBody: { collection, filepaths } });
  const listed = await storedImages.list({ collection, filter: { album: "cats" }, limit: 1 });
  console.log(JSON.stringify({ ...answers, list: listed.result }));
}

void main();
