// The module of the pages: everything here adds to pages that work without it while the API has no keys.

const KEY = "match-api-key";
const MAIN = document.querySelector("#main");
const HAS_KEYS = document.body.hasAttribute("data-keys");

// --- requests ---------------------------------------------------------------------------------------------------

const send = (path, options = {}) => {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(HAS_KEYS && key ? { Authorization: `Bearer ${key}` } : {}) };
  return fetch(path, { ...options, headers });
};

const pageOf = async (response) => new DOMParser().parseFromString(await response.text(), "text/html");

// Replaces the content of `selector` by that of a fetched page; a page without it replaces everything.
const show = (fetched, selector) => {
  const part = fetched.querySelector(selector);
  const old = document.querySelector(selector);
  const [target, source] = part && old ? [old, part] : [MAIN, fetched.querySelector("#main")];
  target.replaceChildren(...document.adoptNode(source).childNodes);
  document.title = fetched.title;
  enhance(target);
};

// Returns the JSON of a reply; without one it has the status and a text, and `retryAfter` where a retry may help.
const replyOf = async (path, options) => {
  try {
    const response = await send(path, options);
    const reply = await response.json();
    const retryAfter = [429, 503].includes(response.status) ? Number(response.headers.get("Retry-After") || 1) : 0;
    return { ...reply, retryAfter };
  } catch {
    return { status: "fail", error: ["the service cannot be reached"], result: [], retryAfter: 0 };
  }
};

const refresh = async (selector) => {
  const response = await send(location.href);
  if (response.ok) {
    show(await pageOf(response), selector);
  }
};

const say = (text) => {
  const line = document.createElement("p");
  line.textContent = text;
  document.querySelector("#messages").replaceChildren(line);
  setTimeout(() => line.remove(), 6000);
};

// Sends a form and shows the part `selector` of the page in the reply.
const submit = async (form, selector, data = new FormData(form)) => {
  const target = document.querySelector(selector);
  target.setAttribute("aria-busy", "true");
  try {
    const response = await send(form.action, { method: "POST", body: data });
    if (response.status === 401) {
      askForKey();
    } else {
      show(await pageOf(response), selector);
    }
  } catch {
    say("The service cannot be reached.");
  } finally {
    target.removeAttribute("aria-busy");
  }
};

// --- API keys ---------------------------------------------------------------------------------------------------

// A browser sends no key with an address, so the page of an API with keys arrives empty and is fetched again.
const askForKey = () => {
  sessionStorage.removeItem(KEY);
  location.reload();
};

const openWithKey = async (form) => {
  const response = await send(location.href);
  if (response.status !== 401) {
    show(await pageOf(response), "#main");
    return;
  }
  sessionStorage.removeItem(KEY);
  const alert = form.querySelector(".alert");
  alert.textContent = "This is not a valid API key.";
  alert.hidden = false;
};

// --- images -----------------------------------------------------------------------------------------------------

const choose = (chooser, file) => {
  const files = new DataTransfer();
  files.items.add(file);
  const input = chooser.querySelector("input");
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
};

const preview = (chooser) => {
  const image = chooser.querySelector(".preview");
  if (!image) {
    return;
  }
  const [file] = chooser.querySelector("input").files;
  URL.revokeObjectURL(image.src);
  image.hidden = !file;
  image.src = file ? URL.createObjectURL(file) : "";
  chooser.querySelector(".hint").hidden = Boolean(file);
};

const imageOf = (transfer) => [...transfer.files].find((file) => file.type.startsWith("image/"));

const addChooser = (chooser) => {
  const input = chooser.querySelector("input");
  input.addEventListener("change", () => preview(chooser));
  input.addEventListener("dragenter", () => chooser.classList.add("over"));
  for (const name of ["dragleave", "drop"]) {
    input.addEventListener(name, () => chooser.classList.remove("over"));
  }
};

// --- search -----------------------------------------------------------------------------------------------------

const addSearch = (form) => {
  const chooser = form.querySelector("[data-chooser]");
  const { image, url } = form.elements;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, "#results");
  });
  image.addEventListener("change", () => {
    if (image.files.length) {
      url.value = "";
      form.requestSubmit();
    }
  });
  url.addEventListener("input", () => {
    if (image.files.length) {
      image.value = "";
      preview(chooser);
    }
  });
};

document.addEventListener("paste", (event) => {
  const chooser = document.querySelector("[data-search] [data-chooser]");
  const file = imageOf(event.clipboardData);
  if (chooser && file) {
    event.preventDefault();
    choose(chooser, file);
  }
});

// --- deleting ---------------------------------------------------------------------------------------------------

const UNDO_MS = 8000;
const MAX_DELETES = 1000;

// Deletes after UNDO_MS, or when the page is left, unless the reader takes it back.
const deleteLater = (filepaths, { hide, undo, done }) => {
  hide();
  const line = document.createElement("p");
  const button = document.createElement("button");
  line.textContent = filepaths.length === 1 ? `Deleted ${filepaths[0]}` : `Deleted ${filepaths.length} images`;
  button.textContent = "Undo";
  line.append(button);
  document.querySelector("#messages").append(line);
  let timer = 0;
  const start = () => {
    timer = setTimeout(finish, UNDO_MS);
  };
  const end = () => {
    clearTimeout(timer);
    removeEventListener("pagehide", finish);
    line.remove();
  };
  const finish = async () => {
    end();
    const failures = await deleteNow(filepaths);
    if (failures.length) {
      undo();
      say(failures[0]);
    } else {
      done();
    }
  };
  button.addEventListener("click", () => {
    end();
    undo();
  });
  // Time stops while the reader is at the button.
  for (const [enter, leave] of [["mouseenter", "mouseleave"], ["focusin", "focusout"]]) {
    line.addEventListener(enter, () => clearTimeout(timer));
    line.addEventListener(leave, () => {
      clearTimeout(timer);
      if (line.isConnected) {
        start();
      }
    });
  }
  addEventListener("pagehide", finish);
  start();
};

const deleteNow = async (filepaths) => {
  const failures = [];
  for (let first = 0; first < filepaths.length; first += MAX_DELETES) {
    const data = new FormData();
    filepaths.slice(first, first + MAX_DELETES).forEach((path, index) => data.append(`filepaths[${index}]`, path));
    // The request survives the page that sends it.
    const reply = await replyOf("/delete", { method: "DELETE", body: data, keepalive: true });
    failures.push(...(reply.status === "fail" ? reply.error : []));
  }
  return failures;
};

const addSelection = (button) => {
  const section = button.closest("section");
  const boxes = [...section.querySelectorAll("[data-select]")];
  const selected = () => boxes.filter((box) => box.checked);
  const update = () => {
    button.hidden = !selected().length;
    button.textContent = `Delete ${selected().length}`;
  };
  for (const box of boxes) {
    box.hidden = false;
    box.addEventListener("change", update);
  }
  button.addEventListener("click", () => {
    const tiles = selected().map((box) => box.closest("[data-filepath]"));
    const setHidden = (hidden) => tiles.forEach((tile) => {
      tile.hidden = hidden;
      tile.querySelector("[data-select]").checked = false;
    });
    deleteLater(tiles.map((tile) => tile.dataset.filepath), {
      hide: () => setHidden(true),
      undo: () => setHidden(false),
      done: () => refresh("#browse"),
    });
    update();
  });
};

const addDelete = (form) => form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  deleteLater([form.elements.filepath.value], {
    hide: () => { button.disabled = true; },
    undo: () => { button.disabled = false; },
    done: () => location.assign("/web/collection"),
  });
});

// --- adding -----------------------------------------------------------------------------------------------------

const ADDED = "match-added";
const AT_ONCE = 2;
const GROUP_FILES = 8;
const GROUP_BYTES = 8 << 20;
const WAIT_S = 20;
const POLL_MS = 1000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const filesOf = async (entry) => {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.slice(1) }];
  }
  const reader = entry.createReader();
  const files = [];
  // A reader returns some entries at a time.
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) {
      return files;
    }
    for (const each of entries) {
      files.push(...await filesOf(each));
    }
  }
};

const groupsOf = (files) => {
  const groups = [];
  let bytes = Infinity;
  for (const each of files) {
    if (bytes + each.file.size > GROUP_BYTES || groups.at(-1).length === GROUP_FILES) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1).push(each);
    bytes += each.file.size;
  }
  return groups;
};

// What this tab has added, so that a folder that is dropped again continues where it was stopped.
const added = {
  key: ({ file, path }, prefix) => `${prefix}${path}|${file.size}|${file.lastModified}`,
  read: () => new Set(JSON.parse(sessionStorage.getItem(ADDED) ?? "[]")),
  write: (keys) => {
    try {
      sessionStorage.setItem(ADDED, JSON.stringify([...keys]));
    } catch {
      sessionStorage.removeItem(ADDED); // It is full: a folder that is dropped again is added again.
    }
  },
};

class Adding {
  constructor(form) {
    this.form = form;
    this.progress = form.querySelector("[data-progress]");
    this.known = added.read();
    this.isStopped = false;
    this.total = 0;
    this.stored = 0;
    this.failed = 0;
  }

  async run(files) {
    this.prefix = this.form.elements.prefix.value;
    const images = files.filter(({ file }) => file.type.startsWith("image/"));
    const missing = images.filter((each) => !this.known.has(added.key(each, this.prefix)));
    this.skipped = images.length - missing.length;
    this.total = missing.length;
    this.progress.hidden = false;
    this.progress.querySelector("ul").replaceChildren();
    this.progress.querySelector("[data-stop]").hidden = false;
    this.show();
    const groups = groupsOf(missing);
    const work = async () => {
      while (groups.length && !this.isStopped) {
        await this.send(groups.shift());
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    this.progress.querySelector("[data-stop]").hidden = true;
    this.show(this.isStopped ? "Stopped" : "Done");
    refresh("#browse");
  }

  stop() {
    this.isStopped = true;
  }

  // Sends some files in one request, which answers when they are stored.
  async send(group) {
    const data = new FormData();
    data.append("wait", WAIT_S);
    group.forEach(({ file, path }, index) => {
      data.append(`images[${index}]`, file);
      data.append(`filepaths[${index}]`, this.prefix + path);
    });
    const reply = await replyOf("/add", { method: "POST", body: data });
    if (reply.retryAfter && !this.isStopped) {
      await sleep(reply.retryAfter * 1000);
      await this.send(group);
      return;
    }
    if (!reply.result?.length) {
      group.forEach((each) => this.fail(each, reply.error[0]));
      return;
    }
    await Promise.all(reply.result.map((outcome) => this.finish(group[outcome.item], outcome)));
    added.write(this.known);
  }

  async finish(each, outcome) {
    let { task } = outcome;
    if (!task) {
      this.fail(each, outcome.error[0]);
      return;
    }
    while (task.state === "pending" || task.state === "running") {
      await sleep(POLL_MS);
      const reply = await replyOf(`/tasks/${task.id}`);
      task = reply.result?.[0] ?? (reply.retryAfter ? task : { state: "failed", error: { message: reply.error[0] } });
    }
    if (task.state === "failed") {
      this.fail(each, task.error.message);
    } else {
      this.stored += 1;
      this.known.add(added.key(each, this.prefix));
      this.show();
    }
  }

  fail({ path }, reason) {
    this.failed += 1;
    const item = document.createElement("li");
    item.textContent = `${path}: ${reason}`;
    this.progress.querySelector("ul").append(item);
    this.show();
  }

  show(state = "Adding") {
    const bar = this.progress.querySelector("progress");
    bar.max = this.total || 1;
    bar.value = this.total ? this.stored + this.failed : 1;
    const parts = [`${state}: ${this.stored} of ${this.total} stored`];
    if (this.failed) {
      parts.push(`${this.failed} failed`);
    }
    if (this.skipped) {
      parts.push(`${this.skipped} skipped, which this tab had added`);
    }
    this.progress.querySelector("output").textContent = parts.join(", ");
  }
}

const addAdding = (form) => {
  form.hidden = false;
  const [images, folder] = form.querySelectorAll("input[type=file]");
  let adding = null;
  const start = async (files) => {
    adding?.stop();
    adding = new Adding(form);
    await adding.run(files);
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("[data-stop]").addEventListener("click", () => adding?.stop());
  for (const input of [images, folder]) {
    input.addEventListener("change", () => {
      start([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      input.value = "";
    });
  }
  const area = form.querySelector("[data-chooser]");
  area.addEventListener("dragover", (event) => event.preventDefault());
  area.addEventListener("drop", async (event) => {
    event.preventDefault();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    start((await Promise.all(entries.map(filesOf))).flat());
  });
};

// --- queue ------------------------------------------------------------------------------------------------------

const POINTS = 120;
const REFRESH_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";

const numberOf = (part, name) => Number(part.querySelector(`[data-number=${name}]`).value);

// Draws the open tasks of the last minutes, and refreshes the numbers while the page is visible.
const watchQueue = async (figure) => {
  const counts = [numberOf(document, "open")];
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "polyline");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("viewBox", `0 -5 ${POINTS - 1} 110`);
  svg.append(line);
  figure.prepend(svg);
  figure.hidden = false;
  while (figure.isConnected) {
    const top = Math.max(1, ...counts);
    const points = counts.map((count, index) => `${POINTS - counts.length + index},${100 - 100 * count / top}`);
    line.setAttribute("points", points.join(" "));
    svg.setAttribute("aria-label", `Open tasks: now ${counts.at(-1)}, at most ${top} in the last minutes`);
    await sleep(REFRESH_MS);
    if (document.hidden) {
      continue;
    }
    const failed = numberOf(document, "failed");
    await refresh("#numbers").catch(() => {});
    if (numberOf(document, "failed") !== failed) {
      await refresh("#failed").catch(() => {});
    }
    counts.push(numberOf(document, "open"));
    counts.splice(0, counts.length - POINTS);
  }
};

// --- start ------------------------------------------------------------------------------------------------------

const ENHANCEMENTS = {
  "[data-chooser]": addChooser,
  "[data-search]": addSearch,
  "[data-compare]": (form) => form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, "#results");
  }),
  "[data-delete-selected]": addSelection,
  "[data-delete]": addDelete,
  "[data-add]": addAdding,
  "[data-plot]": watchQueue,
  "[data-send]": (form) => form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await submit(form, form.dataset.send);
  }),
  "[data-key]": (form) => {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, form.elements.key.value.trim());
      openWithKey(form);
    });
    if (sessionStorage.getItem(KEY)) {
      openWithKey(form);
    }
  },
};

function enhance(part) {
  for (const [selector, add] of Object.entries(ENHANCEMENTS)) {
    part.querySelectorAll(selector).forEach(add);
  }
}

enhance(document);
