// The module of the pages: everything here adds to pages that work without it while the API has no keys.

const KEY = "match-api-key";
const MAIN = document.querySelector("#main");
const HAS_KEYS = document.body.hasAttribute("data-keys");

// The collection of the results on the page, or else of the page.
const collectionOf = () => (document.querySelector("[data-answer]") ?? document.body).dataset.collection;

const addressOf = (path, filepath) => `${path}?${new URLSearchParams({ filepath, collection: collectionOf() })}`;

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
  document.body.dataset.collection = fetched.body.dataset.collection;
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

const refresh = async (...selectors) => {
  const response = await send(location.href);
  if (response.ok) {
    const fetched = await pageOf(response);
    selectors.forEach((selector) => show(fetched, selector));
  }
};

const notify = (text) => {
  const line = document.createElement("p");
  line.textContent = text;
  document.querySelector("#messages").replaceChildren(line);
  setTimeout(() => line.remove(), 6000);
};

// Scrolls to a result that is below the window, as on a phone.
const reveal = (part) => {
  if (part.getBoundingClientRect().top > innerHeight - 100) {
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    part.scrollIntoView({ behavior: isStill ? "instant" : "smooth" });
  }
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
      reveal(target);
    }
  } catch {
    notify("The service cannot be reached.");
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

const FETCHED_FROM_PX = 600;

// Without a thumbnail the image is an empty box.
const showPlaceholder = (image) => {
  image.removeAttribute("src");
  image.classList.add("none");
};

const addThumbnail = (image) => {
  image.addEventListener("error", () => showPlaceholder(image));
  if (image.complete && image.src && !image.naturalWidth) {
    showPlaceholder(image);
  }
  if (image.dataset.src) {
    nearWindow.observe(image);
  }
};

// Fetches with the key each thumbnail that comes near the window.
const nearWindow = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      nearWindow.unobserve(target);
      fetchThumbnail(target);
    }
  }
}, { rootMargin: `${FETCHED_FROM_PX}px` });

const fetchThumbnail = async (image) => {
  const response = await send(image.dataset.src).catch(() => null);
  if (!response?.ok) {
    showPlaceholder(image);
    return;
  }
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  image.src = URL.createObjectURL(await response.blob());
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
  const crop = form.querySelector("[data-crop]");
  const camera = form.querySelector(".camera");
  camera.hidden = !matchMedia("(pointer: coarse)").matches;
  camera.querySelector("input").addEventListener("change", ({ target }) => choose(chooser, target.files[0]));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, "#results");
  });
  image.addEventListener("change", () => {
    crop.hidden = !image.files.length;
    if (image.files.length) {
      url.value = "";
      form.requestSubmit();
    }
  });
  url.addEventListener("input", () => {
    if (image.files.length) {
      image.value = "";
      preview(chooser);
      crop.hidden = true;
    }
  });
  crop.addEventListener("click", () => openCropper(image.files[0], (file) => choose(chooser, file)));
};

const searchForm = () => document.querySelector("[data-search]");

// Searches again with another option; a query that is stored has no form to send again.
const searchWith = (option, value) => {
  const { query } = document.querySelector("[data-answer]").dataset;
  const form = searchForm();
  form.elements[option].value = value;
  if (query === undefined) {
    form.requestSubmit();
    return;
  }
  const options = new FormData(form);
  options.delete("image");
  options.set("filepath", query);
  location.assign(`/web/search?${new URLSearchParams(options)}`);
};

const addAgain = (button) => {
  button.hidden = false;
  button.addEventListener("click", () => searchWith(button.dataset.again, button.value));
};

// Hides cards while the slider moves; a score below all that were searched for is searched again.
const addThreshold = (slider) => {
  const label = slider.closest("label");
  const searched = slider.valueAsNumber;
  const show = () => {
    label.querySelector("output").textContent = slider.value;
    for (const card of document.querySelectorAll(".card")) {
      card.hidden = Number(card.dataset.score) < slider.valueAsNumber;
    }
  };
  label.hidden = false;
  slider.addEventListener("input", show);
  slider.addEventListener("change", () => {
    if (slider.valueAsNumber < searched) {
      searchWith("min_score", slider.value);
    }
  });
  show();
};

// --- comparison view --------------------------------------------------------------------------------------------

const VIEW_PX = 1200;

const loaded = (image) => new Promise((resolve) => {
  if (image.complete && image.naturalWidth) {
    resolve(image);
  } else {
    image.addEventListener("load", () => resolve(image), { once: true });
    image.addEventListener("error", () => resolve(null), { once: true });
  }
});

const imageAt = (src) => {
  const image = new Image();
  image.src = src;
  return loaded(image);
};

const blobAt = async (path) => {
  const response = await send(path);
  return response.ok ? imageAt(URL.createObjectURL(await response.blob())) : null;
};

// The query as the reader chose it, or the thumbnail of a stored one; an image by URL is not shown.
const queryImage = () => {
  const { query } = document.querySelector("[data-answer]").dataset;
  if (query !== undefined) {
    return blobAt(addressOf("/images/thumbnail", query));
  }
  const shown = searchForm().querySelector(".preview");
  return shown.hidden ? Promise.resolve(null) : loaded(shown);
};

// Maps the unit square of the query to that of the stored image: mirrored first, then rotated clockwise.
const orientationMatrix = (orientation) => {
  const quarters = { rotated_90: 1, rotated_180: 2, rotated_270: 3 }[orientation.match(/rotated_\d+/)?.[0]] ?? 0;
  let matrix = orientation.includes("mirrored") ? new DOMMatrix([-1, 0, 0, 1, 1, 0]) : new DOMMatrix();
  for (let turn = 0; turn < quarters; turn += 1) {
    matrix = new DOMMatrix([0, 1, -1, 0, 1, 0]).multiply(matrix);
  }
  return matrix;
};

// Maps the pixels of the match's image to those of the query's.
const placement = (card, query, match, record) => {
  if (!card.dataset.transform || !record) {
    return new DOMMatrix().scale(query.naturalWidth, query.naturalHeight)
      .multiply(orientationMatrix(card.dataset.orientation).inverse())
      .scale(1 / match.naturalWidth, 1 / match.naturalHeight);
  }
  const { m11, m12, m13, m21, m22, m23 } = JSON.parse(card.dataset.transform);
  return new DOMMatrix([m11, m21, m12, m22, m13, m23])
    .scale(record.width / match.naturalWidth, record.height / match.naturalHeight);
};

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

class Viewer {
  constructor(dialog) {
    this.dialog = dialog;
    this.flick = dialog.querySelector("[data-flick]");
    this.opacity = dialog.querySelector("[data-opacity]");
    this.isFlicked = false;
    for (const radio of dialog.querySelectorAll("[name=view]")) {
      radio.addEventListener("change", () => this.draw());
    }
    this.flick.addEventListener("click", () => {
      this.isFlicked = !this.isFlicked;
      this.draw();
    });
    this.opacity.querySelector("input").addEventListener("input", () => this.draw());
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "f" && !this.flick.hidden) {
        this.flick.click();
      }
    });
  }

  async open(card) {
    const { filepath } = card.dataset;
    const thumb = card.querySelector("img.thumb");
    const [query, match, record] = await Promise.all([
      queryImage(),
      thumb?.src ? loaded(thumb) : blobAt(addressOf("/images/thumbnail", filepath)),
      card.dataset.transform ? replyOf(addressOf("/images", filepath)) : null,
    ]);
    if (!query || !match) {
      notify("There is no image to show.");
      return;
    }
    Object.assign(this, { card, query, match, isFlicked: false });
    this.toQuery = placement(card, query, match, record?.result?.[0]);
    this.dialog.querySelector("#viewer-name").textContent = filepath;
    this.draw();
    this.dialog.showModal();
  }

  draw() {
    const view = this.dialog.querySelector("[name=view]:checked").value;
    const [first, second] = this.dialog.querySelectorAll("canvas");
    this.dialog.dataset.view = view;
    this.flick.hidden = view !== "flick";
    this.opacity.hidden = view !== "overlay";
    second.hidden = view !== "pair";
    const context = this.drawQuery(first);
    if (view === "pair") {
      this.drawOutline(context);
      this.drawMatch(second);
    } else if (view !== "flick" || this.isFlicked) {
      this.drawOver(context, view);
    }
    first.setAttribute("aria-label", view === "flick" && this.isFlicked ? "The stored image" : "The query");
  }

  drawQuery(canvas) {
    const scale = Math.min(1, VIEW_PX / Math.max(this.query.naturalWidth, this.query.naturalHeight));
    canvas.width = Math.round(this.query.naturalWidth * scale);
    canvas.height = Math.round(this.query.naturalHeight * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.drawImage(this.query, 0, 0);
    return context;
  }

  drawMatch(canvas) {
    canvas.width = this.match.naturalWidth;
    canvas.height = this.match.naturalHeight;
    canvas.getContext("2d").drawImage(this.match, 0, 0);
  }

  drawOver(context, view) {
    context.save();
    const scale = context.getTransform();
    if (view === "overlay") {
      context.globalAlpha = this.opacity.querySelector("input").valueAsNumber / 100;
    } else if (view === "difference") {
      context.globalCompositeOperation = "difference";
    }
    context.filter = this.card.dataset.orientation.includes("inverted") ? "invert(1)" : "none";
    context.setTransform(scale.multiply(this.toQuery));
    context.drawImage(this.match, 0, 0);
    context.restore();
  }

  // The position of the stored image in the query, where a search found only a part.
  drawOutline(context) {
    if (!this.card.dataset.transform) {
      return;
    }
    const { naturalWidth: width, naturalHeight: height } = this.match;
    const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => this.toQuery.transformPoint({ x, y }));
    context.beginPath();
    corners.forEach(({ x, y }) => context.lineTo(x, y));
    context.closePath();
    context.lineWidth = 4 / context.getTransform().a;
    context.strokeStyle = colourOf("--accent");
    context.stroke();
  }
}

const addView = (button) => {
  button.hidden = false;
  button.addEventListener("click", () => {
    const dialog = document.querySelector("#viewer");
    dialog.viewer ??= new Viewer(dialog);
    dialog.viewer.open(button.closest(".card"));
  });
};

// --- a part of the query ----------------------------------------------------------------------------------------

class Cropper {
  constructor(dialog) {
    this.dialog = dialog;
    this.canvas = dialog.querySelector("[data-crop-area]");
    this.fields = Object.fromEntries(["x", "y", "width", "height"].map((name) => [name, dialog.querySelector(`[name=${name}]`)]));
    for (const field of Object.values(this.fields)) {
      field.addEventListener("input", () => this.draw());
    }
    dialog.querySelector("[data-crop-done]").addEventListener("click", () => this.finish());
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.from = this.pointOf(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.from) {
        this.select(this.from, this.pointOf(event));
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, () => { this.from = null; });
    }
  }

  async open(file, done) {
    this.image = await createImageBitmap(file).catch(() => null);
    if (!this.image) {
      notify("This browser cannot show the image.");
      return;
    }
    this.done = done;
    this.canvas.width = this.image.width;
    this.canvas.height = this.image.height;
    this.select({ x: 0, y: 0 }, { x: 100, y: 100 });
    this.dialog.showModal();
  }

  // The position in percent of the image.
  pointOf({ clientX, clientY }) {
    const area = this.canvas.getBoundingClientRect();
    const percent = (value) => Math.round(Math.min(100, Math.max(0, 100 * value)));
    return { x: percent((clientX - area.left) / area.width), y: percent((clientY - area.top) / area.height) };
  }

  select(from, to) {
    this.fields.x.value = Math.min(from.x, to.x);
    this.fields.y.value = Math.min(from.y, to.y);
    this.fields.width.value = Math.abs(from.x - to.x);
    this.fields.height.value = Math.abs(from.y - to.y);
    this.draw();
  }

  // The part in pixels, at least one.
  part() {
    const { width, height } = this.image;
    const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => this.fields[name].valueAsNumber / 100 || 0);
    const left = Math.min(Math.round(x * width), width - 1);
    const top = Math.min(Math.round(y * height), height - 1);
    return [left, top, Math.max(1, Math.min(Math.round(w * width), width - left)), Math.max(1, Math.min(Math.round(h * height), height - top))];
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const part = this.part();
    context.globalAlpha = 1;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.globalAlpha = 0.35;
    context.drawImage(this.image, 0, 0);
    context.globalAlpha = 1;
    context.drawImage(this.image, ...part, ...part);
    context.lineWidth = Math.max(2, this.canvas.width / 300);
    context.strokeStyle = colourOf("--accent");
    context.strokeRect(...part);
  }

  finish() {
    const [x, y, width, height] = this.part();
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").drawImage(this.image, x, y, width, height, 0, 0, width, height);
    canvas.convertToBlob({ type: "image/png" }).then((blob) => {
      this.dialog.close();
      this.done(new File([blob], "part.png", { type: "image/png" }));
    });
  }
}

const openCropper = (file, done) => {
  const dialog = document.querySelector("#cropper");
  dialog.cropper ??= new Cropper(dialog);
  dialog.cropper.open(file, done);
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

// Deletes after UNDO_MS, or when the page is left, unless the reader undoes it.
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
      notify(failures[0]);
    } else {
      done();
    }
  };
  button.addEventListener("click", () => {
    end();
    undo();
  });
  // The timer is stopped while the pointer or the focus is on the message.
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
    data.append("collection", collectionOf());
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
    done: () => location.assign(`/web/collection?${new URLSearchParams({ collection: collectionOf() })}`),
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
    this.collection = this.form.elements.collection.value;
    const images = files.filter(({ file }) => file.type.startsWith("image/"));
    const missing = images.filter((each) => !this.known.has(this.keyOf(each)));
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
    if (this.collection === collectionOf()) {
      refresh("#browse");
    } else if (this.stored && !this.failed) {
      location.assign(`/web/collection?${new URLSearchParams({ collection: this.collection })}`);
    }
  }

  stop() {
    this.isStopped = true;
  }

  keyOf({ file, path }) {
    return `${this.collection}/${this.prefix}${path}|${file.size}|${file.lastModified}`;
  }

  // Sends some files in one request, which answers when they are stored.
  async send(group) {
    const data = new FormData();
    data.append("wait", WAIT_S);
    data.append("collection", this.collection);
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
      this.known.add(this.keyOf(each));
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
    // A button that has the focus must not be replaced.
    const isUsed = (selector) => document.querySelector(selector).contains(document.activeElement);
    await refresh("#numbers", ...(isUsed("#batches") ? [] : ["#batches"])).catch(() => {});
    // Replaced each time, the alert would be announced each time.
    if (numberOf(document, "paused") !== numberOf(document, "shown-pause") && !isUsed("#pause")) {
      await refresh("#pause").catch(() => {});
    }
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
  "[data-thumbnail]": addThumbnail,
  "[data-again]": addAgain,
  "[data-threshold]": addThreshold,
  "[data-view]": addView,
  "[data-delete-selected]": addSelection,
  "[data-delete]": addDelete,
  "[data-add]": addAdding,
  "[data-plot]": watchQueue,
  "[data-send]": (form) => form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, form.dataset.send);
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
