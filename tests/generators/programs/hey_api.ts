/* Use the service by the client of @hey-api/openapi-ts: the address, a collection, the origin of images. */

import * as match from "./made";
import { client } from "./made/client.gen";

declare const process: { argv: string[] };

const [address, collection, origin] = process.argv.slice(2);
client.setConfig({ baseUrl: address });

async function file(name: string): Promise<Blob> {
  return (await fetch(`${origin}/${name}`)).blob();
}

async function add(body: match.AddBody, batch?: string): Promise<match.AddReply> {
  const headers = { "X-Batch-ID": batch };
  return (await match.add({ headers, body: { collection, ...body }, throwOnError: true })).data;
}

/** Follow a task to its end. */
async function ended(id = ""): Promise<string> {
  for (;;) {
    const { data } = await match.task({ path: { id }, throwOnError: true });
    const { state } = data.result[0];
    if (state !== "pending" && state !== "running") return state;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Follow a batch to its end. */
async function batchAtItsEnd(id: string): Promise<[string, number]> {
  for (;;) {
    const { data } = await match.oneBatch({ path: { id }, throwOnError: true });
    const { state, succeeded } = data.result[0];
    if (state !== "running") return [state, succeeded];
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function find(album: string, query: match.SearchBody): Promise<string[]> {
  const body = { collection, limit: 1, filter: { album }, ...query };
  return (await match.search({ body, throwOnError: true })).data.result.map((one) => one.filepath);
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
  const unknown = await match.search({ body: { collection, filepath: "unknown" } });
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
    count: (await match.countPost({ body: where, throwOnError: true })).data.result[0],
  };
  await match.delete_({ body: { collection, filepaths } });
  const listed = await match.list({ query: { ...where, limit: 1 }, throwOnError: true });
  console.log(JSON.stringify({ ...answers, list: listed.data.result }));
}

void main();
