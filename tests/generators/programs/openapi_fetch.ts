/* Use the service by the types of openapi-typescript and openapi-fetch: the address, a collection, the origin of images. */

import createClient from "openapi-fetch";
import type { components, paths } from "./made/schema";

declare const process: { argv: string[] };

type AddBody = components["schemas"]["AddBody"];
type SearchBody = components["schemas"]["SearchBody"];

const [address, collection, origin] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: address });

/** Return a multipart form, which openapi-fetch does not make itself: without it, a body is JSON. */
function form(body: object): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(body)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      data.append(name, one instanceof Blob || typeof one === "string" ? one : JSON.stringify(one));
    }
  }
  return data;
}

/** Return a file, whose type is a string in openapi-typescript. */
async function file(name: string): Promise<string> {
  return (await (await fetch(`${origin}/${name}`)).blob()) as unknown as string;
}

async function add(body: AddBody, batch?: string): Promise<components["schemas"]["AddReply"]> {
  const params = { header: { "X-Batch-ID": batch } };
  const { data, error } = await client.POST("/add", { params, body: { collection, ...body }, bodySerializer: form });
  if (error) throw new Error(error.code);
  return data;
}

/** Follow a task to its end. */
async function ended(id = ""): Promise<string> {
  for (;;) {
    const { data, error } = await client.GET("/tasks/{id}", { params: { path: { id } } });
    if (error) throw new Error(error.code);
    const { state } = data.result[0];
    if (state !== "pending" && state !== "running") return state;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Follow a batch to its end. */
async function batchAtItsEnd(id: string): Promise<[string, number]> {
  for (;;) {
    const { data, error } = await client.GET("/batches/{id}", { params: { path: { id } } });
    if (error) throw new Error(error.code);
    const { state, succeeded } = data.result[0];
    if (state !== "running") return [state, succeeded];
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function find(album: string, query: SearchBody): Promise<string[]> {
  const body = { collection, limit: 1, filter: { album }, ...query };
  const { data, error } = await client.POST("/search", { body, ...(query.image ? { bodySerializer: form } : {}) });
  if (error) throw new Error(error.code);
  return data.result.map((match) => match.filepath);
}

async function main(): Promise<void> {
  const cats = JSON.stringify({ album: "cats" });
  const drinks = JSON.stringify({ album: "drinks" });
  const byFile = await add({ image: await file("chelsea.jpg"), filepath: "file", metadata: cats, wait: 60 });
  const byUrl = await add({ url: `${origin}/coffee.jpg`, filepath: "url", metadata: drinks });
  const filepaths = ["a, 1", "a, 2"];
  const images = [await file("rocket.jpg"), await file("moose.jpg")];
  const states = [byFile.task?.state, await ended(byUrl.task?.id)];
  const many = await add({ filepaths, images }, `${collection}-batch`);
  const unknown = await client.POST("/search", { body: { collection, filepath: "unknown" } });
  const where = { collection, filter: { album: "cats" } };
  const answers = {
    states,
    outcomes: many.result.map((outcome) => outcome.status),
    batch: await batchAtItsEnd(`${collection}-batch`),
    by_file: await find("cats", { image: await file("chelsea.jpg") }),
    by_url: await find("drinks", { url: `${origin}/coffee.jpg` }),
    by_filepath: await find("cats", { filepath: "file" }),
    in_another_album: await find("drinks", { filepath: "file" }),
    code: unknown.error?.code,
    count: (await client.POST("/count", { body: where })).data?.result[0],
  };
  await client.DELETE("/delete", { body: { collection, filepaths } });
  const listed = await client.GET("/list", { params: { query: { ...where, limit: 1 } } });
  console.log(JSON.stringify({ ...answers, list: listed.data?.result }));
}

void main();
