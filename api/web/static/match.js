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

const showPreview = (chooser, blob) => {
  const shown = chooser.querySelector("[data-outlined]");
  const image = shown.querySelector("img");
  URL.revokeObjectURL(image.src);
  shown.querySelector("svg")?.remove();
  shown.hidden = !blob;
  image.onerror = null;
  image.removeAttribute("src");
  if (blob) {
    image.src = URL.createObjectURL(blob);
  }
  chooser.classList.toggle("chosen", Boolean(blob));
  delete shown.dataset.width;
  delete shown.dataset.height;
  return shown;
};

// Shows the service's small copy of a query that the browser cannot show: an image by URL, or of another format.
const fetchPreview = async (form, name, value) => {
  if (!form?.hasAttribute("data-previews")) {
    return;
  }
  const data = new FormData();
  data.append(name, value);
  const response = await send("/web/preview", { method: "POST", body: data }).catch(() => null);
  // Meanwhile the reader may have chosen another.
  if (response?.ok && (name === "url" ? form.elements.url.value : form.elements.image.files[0]) === value) {
    const shown = showPreview(form.querySelector("[data-chooser]"), await response.blob());
    [shown.dataset.width, shown.dataset.height] = response.headers.get("X-Image-Size").split("x");
    document.querySelectorAll("[data-answer]").forEach(outlineParts);
  }
};

const preview = (chooser) => {
  if (chooser.querySelector("[data-outlined]")) {
    const [file] = chooser.querySelector("input").files;
    const image = showPreview(chooser, file).querySelector("img");
    image.onerror = () => {
      if (file && chooser.querySelector("input").files[0] === file) {
        showPreview(chooser, null);
        fetchPreview(chooser.closest("[data-search]"), "image", file);
      }
    };
  }
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

const addChooser = (chooser) => {
  chooser.querySelector("input").addEventListener("change", () => preview(chooser));
};

// --- pasting and dropping ---------------------------------------------------------------------------------------

const IMAGE_NAME = /\.(avif|bmp|gif|hei[cf]|jfif|jpe?g|p[bgnp]m|png|tiff?|webp)$/i;

// A browser knows the types of few names.
const isImage = ({ type, name }) => type.startsWith("image/") || IMAGE_NAME.test(name);

const urlIn = (transfer) => {
  const text = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).trim();
  return /^https?:\/\/\S+$/.test(text) ? text : null;
};

// Searches with an image or the address of one; returns whether the page has the form for it.
const searchWithImage = (file, url) => {
  const form = searchForm();
  if (!form || form.hidden || !(file || url)) {
    return false;
  }
  if (file) {
    choose(form.querySelector("[data-chooser]"), file);
  } else {
    form.elements.url.value = url;
    form.elements.url.dispatchEvent(new Event("input"));
    form.requestSubmit();
  }
  return true;
};

document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(isImage);
  // Text is pasted into the field that has the focus.
  const isText = event.target.matches?.("input, textarea");
  if (searchWithImage(file, isText ? null : urlIn(event.clipboardData))) {
    event.preventDefault();
  }
});

const addPaste = (button) => {
  const isMac = /Mac|iPhone|iPad/.test(navigator.userAgent);
  button.querySelector("kbd").textContent = isMac ? "⌘ V" : "Ctrl V";
  // Browsers have the clipboard only over TLS, or on this machine.
  button.hidden = !navigator.clipboard?.read;
  button.addEventListener("click", async () => {
    const items = await navigator.clipboard.read().catch(() => []);
    for (const item of items) {
      const type = item.types.find((each) => each.startsWith("image/"));
      if (type) {
        searchWithImage(new File([await item.getType(type)], "pasted", { type }));
        return;
      }
    }
    notify("The clipboard has no image, or this page may not read it.");
  });
};

// Returns files with their paths within what was dropped.
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

// Handles a drop anywhere on the page: otherwise the browser would open the file instead of the page.
const drop = async ({ target, dataTransfer }) => {
  const url = urlIn(dataTransfer);
  const entries = [...dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const [file] = dataTransfer.files;
  const adding = document.querySelector("[data-add]");
  const isOne = entries.length === 1 && entries[0].isFile;
  const chooser = target.closest?.("[data-chooser]");
  if (isOne && chooser && !chooser.closest("[data-add]")) {
    choose(chooser, file);
  } else if (!(isOne || !entries.length) || !searchWithImage(file, url)) {
    if (adding && entries.length) {
      adding.dispatchEvent(new CustomEvent("add", { detail: (await Promise.all(entries.map(filesOf))).flat() }));
    } else if (entries.length) {
      notify("This page takes one image at a time.");
    }
  }
};

// A thumbnail or a link of the page itself.
let isOwnDrag = false;
document.addEventListener("dragstart", () => { isOwnDrag = true; });
document.addEventListener("dragend", () => { isOwnDrag = false; });

// A text is dropped into a field as usual.
const isForPage = ({ target, dataTransfer: { types } }) => !isOwnDrag && (types.includes("Files")
  || (types.includes("text/uri-list") && !target.matches?.("input:not([type=file])")));

for (const name of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(name, (event) => {
    if (isForPage(event) && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      document.body.classList.toggle("dragging", name === "dragover");
      if (name === "drop") {
        drop(event);
      }
    }
  });
}

// --- search -----------------------------------------------------------------------------------------------------

const searchForm = () => document.querySelector("[data-search]");

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
    if (url.value) {
      fetchPreview(form, "url", url.value);
    }
  });
  image.addEventListener("change", () => {
    crop.hidden = !image.files.length;
    if (image.files.length) {
      url.value = "";
      form.requestSubmit();
    }
  });
  url.addEventListener("input", () => {
    image.value = "";
    preview(chooser);
    crop.hidden = true;
  });
  crop.addEventListener("click", () => openCropper(image.files[0], (file) => choose(chooser, file)));
};

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
  if (image.complete) {
    resolve(image.naturalWidth ? image : null);
  } else {
    image.loading = "eager";
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

// The image of a stored one that `element` shows, or its thumbnail.
const storedImage = (element, filepath) => {
  const image = element?.querySelector("img.thumb");
  return image?.src ? loaded(image) : blobAt(addressOf("/images/thumbnail", filepath));
};

// The query of a card with its size, as the reader chose it, or the stored image that the search was for.
const queryOf = async (card) => {
  const { query, width, height } = card.closest("[data-query]")?.dataset ?? {};
  if (query !== undefined) {
    const image = await storedImage(card.closest("[data-query]").querySelector("[data-query-image]"), query);
    return image && { image, width: Number(width), height: Number(height) };
  }
  const shown = searchForm().querySelector("[data-outlined]");
  const image = shown.hidden ? null : await loaded(shown.querySelector("img"));
  const { width: fullWidth = image?.naturalWidth, height: fullHeight = image?.naturalHeight } = shown.dataset;
  return image && { image, width: Number(fullWidth), height: Number(fullHeight) };
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

// Maps the unit square of the card's image to the pixels of the query, which has this size.
const placement = (card, { width, height }) => {
  const { transform, orientation, width: ownWidth, height: ownHeight } = card.dataset;
  if (!transform) {
    return new DOMMatrix().scale(width, height).multiply(orientationMatrix(orientation).inverse());
  }
  const { m11, m12, m13, m21, m22, m23 } = JSON.parse(transform);
  return new DOMMatrix([m11, m21, m12, m22, m13, m23]).scale(Number(ownWidth), Number(ownHeight));
};

// The query and the card's image at its place, in few pixels.
const CELLS = 32;
const CELL_PX = 5;

const pixelsOf = ({ width, height }, paint) => {
  const scale = CELLS * CELL_PX / Math.max(width, height);
  const canvas = new OffscreenCanvas(Math.max(CELL_PX, Math.round(width * scale)), Math.max(CELL_PX, Math.round(height * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(canvas.width / width, canvas.height / height);
  paint(context);
  return context.getImageData(0, 0, canvas.width, canvas.height);
};

// Returns whether each cell of two images is nearly equal: of 255 levels, the mean difference.
const MAX_DIFFERENCE = 26;

const equalCells = (first, second) => {
  const [columns, rows] = [Math.floor(first.width / CELL_PX), Math.floor(first.height / CELL_PX)];
  return Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (__, column) => {
    let difference = 0;
    for (let y = row * CELL_PX; y < (row + 1) * CELL_PX; y += 1) {
      for (let x = column * CELL_PX; x < (column + 1) * CELL_PX; x += 1) {
        const pixel = 4 * (y * first.width + x);
        if (second.data[pixel + 3] < 255) {
          return false;
        }
        for (let channel = pixel; channel < pixel + 3; channel += 1) {
          difference += Math.abs(first.data[channel] - second.data[channel]);
        }
      }
    }
    return difference < 3 * CELL_PX * CELL_PX * MAX_DIFFERENCE;
  }));
};

const AROUND = [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => [y, x]));

// Returns the first and last row and column of the largest connected area; cells with few neighbours are none of it.
const largestArea = (cells) => {
  const isEqual = (row, column) => Boolean(cells[row]?.[column]);
  const isInside = cells.map((line, row) => line.map((_, column) => AROUND.filter(([y, x]) => isEqual(row + y, column + x)).length > 5));
  let largest = [];
  isInside.forEach((line, start) => line.forEach((__, from) => {
    const area = [];
    const left = [[start, from]];
    while (left.length) {
      const [row, column] = left.pop();
      if (isInside[row]?.[column]) {
        isInside[row][column] = false;
        area.push([row, column]);
        AROUND.forEach(([y, x]) => left.push([row + y, column + x]));
      }
    }
    largest = area.length > largest.length ? area : largest;
  }));
  const [rows, columns] = [0, 1].map((axis) => largest.map((cell) => cell[axis]));
  return { size: largest.length, top: Math.min(...rows), bottom: Math.max(...rows) + 1, left: Math.min(...columns), right: Math.max(...columns) + 1 };
};

// Less is chance.
const MIN_CELLS = 12;

// Returns the corners of the part of the query that shows the card's image. The transform places the whole image, of
// which a screenshot may show a part; where the pixels cannot be compared, the corners are those of the whole.
const cornersOf = (card, query, match) => {
  const place = placement(card, query);
  try {
    const shown = pixelsOf(query, (context) => context.drawImage(query.image, 0, 0, query.width, query.height));
    const placed = pixelsOf(query, (context) => {
      context.transform(place.a, place.b, place.c, place.d, place.e, place.f);
      context.drawImage(match, 0, 0, 1, 1);
    });
    const { size, top, bottom, left, right } = largestArea(equalCells(shown, placed));
    if (size >= MIN_CELLS) {
      const [x, y] = [query.width, query.height].map((side, axis) => side / (axis ? shown.height : shown.width) * CELL_PX);
      return [[left, top], [right, top], [right, bottom], [left, bottom]].map(([column, row]) => ({
        x: Math.min(column * x, query.width), y: Math.min(row * y, query.height),
      }));
    }
  } catch (error) {
    // An image from another host.
    if (error.name !== "SecurityError") {
      throw error;
    }
  }
  return [[0, 0], [1, 0], [1, 1], [0, 1]].map(([x, y]) => place.transformPoint({ x, y }));
};

const SVG = "http://www.w3.org/2000/svg";

const svgElement = (name, attributes) => {
  const element = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  return element;
};

// More would hide the query.
const MAX_OUTLINES = 12;

// Outlines the shared parts in the query; the part of the card that is pointed at, or has the focus, stands out.
const outlineParts = async (answer) => {
  const cards = [...answer.querySelectorAll("[data-transform]")].slice(0, MAX_OUTLINES);
  const shown = (answer.dataset.query === undefined ? searchForm() : answer).querySelector("[data-outlined]");
  shown?.querySelector("svg")?.remove();
  const query = cards.length && shown && !shown.hidden ? await queryOf(cards[0]) : null;
  if (!query) {
    return;
  }
  const { width, height } = query;
  const count = `${cards.length} shared ${cards.length === 1 ? "part" : "parts"}, outlined`;
  const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": count });
  const matches = await Promise.all(cards.map((card) => storedImage(card, card.dataset.filepath)));
  for (const [index, card] of cards.entries()) {
    if (!matches[index]) {
      continue;
    }
    const part = `M${cornersOf(card, query, matches[index]).map(({ x, y }) => `${x},${y}`).join("L")}Z`;
    const group = svg.appendChild(svgElement("g", {}));
    group.append(svgElement("path", { class: "rest", d: `M0,0H${width}V${height}H0Z${part}` }), svgElement("path", { class: "part", d: part }));
    for (const [name, isActive] of [["pointerenter", true], ["focusin", true], ["pointerleave", false], ["focusout", false]]) {
      card.addEventListener(name, () => group.classList.toggle("active", isActive));
    }
  }
  shown.querySelector("svg")?.remove();
  shown.append(svg);
};

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

class Viewer {
  constructor(dialog) {
    this.dialog = dialog;
    this.opacity = dialog.querySelector("[data-opacity]");
    for (const radio of dialog.querySelectorAll("[name=view]")) {
      radio.addEventListener("change", () => this.draw());
    }
    dialog.querySelector("[data-flick]").addEventListener("click", () => this.flick());
    this.opacity.querySelector("input").addEventListener("input", () => this.draw());
    dialog.addEventListener("keydown", ({ key, ctrlKey, metaKey }) => {
      if (key.toLowerCase() === "f" && !ctrlKey && !metaKey) {
        this.flick();
      }
    });
  }

  async open(card) {
    const { filepath } = card.dataset;
    const [query, match] = await Promise.all([queryOf(card), storedImage(card, filepath)]);
    if (!query || !match) {
      notify("There is no image to show.");
      return;
    }
    Object.assign(this, { card, query, match, isFlicked: false });
    this.dialog.querySelector("#viewer-name").textContent = filepath;
    this.draw();
    this.dialog.showModal();
  }

  // Shows the other image in place of the one that is shown.
  flick() {
    const radio = this.dialog.querySelector("[value=flick]");
    this.isFlicked = !(radio.checked && this.isFlicked);
    radio.checked = true;
    this.draw();
  }

  draw() {
    const view = this.dialog.querySelector("[name=view]:checked").value;
    const [first, second] = this.dialog.querySelectorAll("canvas");
    this.dialog.dataset.view = view;
    this.opacity.hidden = view !== "overlay";
    this.dialog.querySelector("[data-second]").hidden = view !== "pair";
    const context = this.drawQuery(first);
    if (view === "pair") {
      this.drawOutline(context);
      this.drawMatch(second);
    } else if (view !== "flick" || this.isFlicked) {
      this.drawOver(context, view);
    }
    const names = { pair: "Query", flick: this.isFlicked ? "Stored image" : "Query", overlay: "Stored image over the query", difference: "Difference" };
    first.setAttribute("aria-label", names[view]);
    this.dialog.querySelector("[data-caption]").textContent = names[view];
  }

  drawQuery(canvas) {
    const { image, width } = this.query;
    const scale = Math.min(1, VIEW_PX / Math.max(image.naturalWidth, image.naturalHeight));
    canvas.width = Math.round(image.naturalWidth * scale);
    canvas.height = Math.round(image.naturalHeight * scale);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    // From here on in the query's own pixels.
    context.scale(canvas.width / width, canvas.width / width);
    return context;
  }

  drawMatch(canvas) {
    canvas.width = this.match.naturalWidth;
    canvas.height = this.match.naturalHeight;
    canvas.getContext("2d").drawImage(this.match, 0, 0);
  }

  drawOver(context, view) {
    if (view === "overlay") {
      context.globalAlpha = this.opacity.querySelector("input").valueAsNumber / 100;
    } else if (view === "difference") {
      context.globalCompositeOperation = "difference";
    }
    context.filter = this.card.dataset.orientation.includes("inverted") ? "invert(1)" : "none";
    context.setTransform(context.getTransform().multiply(placement(this.card, this.query)));
    context.drawImage(this.match, 0, 0, 1, 1);
  }

  // The position of the stored image in the query, where a search found only a part.
  drawOutline(context) {
    if (!this.card.dataset.transform) {
      return;
    }
    context.beginPath();
    cornersOf(this.card, this.query, this.match).forEach(({ x, y }) => context.lineTo(x, y));
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

// --- deleting ---------------------------------------------------------------------------------------------------

const UNDO_MS = 8000;
const MAX_DELETES = 1000;

// Calls `send` after UNDO_MS, or when the page is left, unless the reader undoes it. `send` returns errors.
const sendLater = (text, { hide, undo, send: sendNow, done }) => {
  hide();
  const line = document.createElement("p");
  const button = document.createElement("button");
  line.textContent = text;
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
    const [error] = await sendNow();
    if (error) {
      undo();
      notify(error);
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

const deleteLater = (filepaths, actions) => {
  const text = filepaths.length === 1 ? `Deleted ${filepaths[0]}` : `Deleted ${filepaths.length} images`;
  sendLater(text, { ...actions, send: () => deleteNow(filepaths) });
};

const addSelection = (button) => {
  const section = button.closest("section");
  const selected = () => [...section.querySelectorAll("[data-select]:checked")];
  const update = () => {
    const count = selected().length;
    button.hidden = !count;
    button.textContent = `Delete ${count}`;
  };
  section.addEventListener("change", update);
  button.addEventListener("click", () => {
    const tiles = selected().map((box) => box.closest("[data-filepath]"));
    selected().forEach((box) => { box.checked = false; });
    update();
    deleteTiles(section, tiles);
  });
};

const deleteTiles = (section, tiles) => {
  const setHidden = (isHidden) => {
    tiles.forEach((tile) => { tile.hidden = isHidden; });
    hideSingles(section);
  };
  deleteLater([...new Set(tiles.map((tile) => tile.dataset.filepath))], {
    hide: () => setHidden(true),
    undo: () => setHidden(false),
    done: () => (section.hasAttribute("data-duplicates") ? null : refresh("#browse")),
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

// --- duplicates -------------------------------------------------------------------------------------------------

const MAX_GROUPS = 200;
// Pages that are searched without a click: a large collection takes long.
const MAX_PAGES = 30;

const filepathsOf = (group) => [...group.querySelectorAll("[data-filepath]")].map((card) => card.dataset.filepath);

// A group of which at most one image is left is none.
const hideSingles = (section) => {
  for (const group of section.querySelectorAll(".group")) {
    group.hidden = group.querySelectorAll("[data-filepath]:not([hidden])").length < 2 || "dismissed" in group.dataset;
  }
};

const addKeep = (button) => {
  button.hidden = false;
  button.addEventListener("click", () => {
    const kept = button.closest("[data-filepath]");
    const others = [...button.closest(".group").querySelectorAll("[data-filepath]:not([hidden])")];
    deleteTiles(button.closest("[data-duplicates]"), others.filter((card) => card !== kept));
  });
};

const addDistinct = (form) => form.addEventListener("submit", (event) => {
  event.preventDefault();
  const group = form.closest(".group");
  const data = new FormData(form);
  const setHidden = (isHidden) => {
    group.hidden = isHidden;
    group.toggleAttribute("data-dismissed", isHidden);
  };
  sendLater("Marked as not duplicates", {
    hide: () => setHidden(true),
    undo: () => setHidden(false),
    send: async () => {
      const response = await send(form.action, { method: "POST", body: data, keepalive: true }).catch(() => null);
      return response?.ok ? [] : ["The verdict was not stored."];
    },
    done: () => {},
  });
});

// Searches with the further images, page by page, and appends their groups.
class Scan {
  constructor(section) {
    this.section = section;
    this.heading = section.querySelector("h2");
    this.button = section.querySelector("[data-scan]");
    this.next = this.button.dataset.scan;
    this.isRunning = false;
    this.pages = MAX_PAGES;
    this.groups = MAX_GROUPS;
    this.button.hidden = false;
    section.querySelector("[data-pager]")?.remove();
    this.button.addEventListener("click", () => {
      this.pages = Infinity;
      if (this.isRunning) {
        this.stop();
      } else {
        this.run();
      }
    });
  }

  stop() {
    this.isRunning = false;
    this.button.textContent = "Continue";
  }

  async run() {
    this.isRunning = true;
    this.button.textContent = "Stop";
    while (this.isRunning && this.section.isConnected) {
      const response = await send(this.next).catch(() => null);
      if ([429, 503].includes(response?.status)) {
        await sleep(1000 * Number(response.headers.get("Retry-After") || 1));
      } else if (response?.ok) {
        this.append(await pageOf(response));
      } else {
        notify("The search for duplicates was interrupted.");
        this.stop();
      }
    }
  }

  append(fetched) {
    const known = new Set([...this.section.querySelectorAll(".group")].map((group) => filepathsOf(group).sort().join("\n")));
    for (const group of fetched.querySelectorAll(".group")) {
      if (!known.has(filepathsOf(group).sort().join("\n"))) {
        const added = document.adoptNode(group);
        this.section.querySelector("[data-groups]").append(added);
        enhance(added);
      }
    }
    const count = this.section.querySelectorAll(".group").length;
    const searched = fetched.querySelector("[data-searched]").dataset;
    this.heading.textContent = `${count.toLocaleString("en")} ${count === 1 ? "group" : "groups"}, ${searched.searched} of ${searched.total} images searched`;
    this.section.querySelector("[data-empty]")?.toggleAttribute("hidden", count > 0);
    this.next = fetched.querySelector("[data-scan]")?.dataset.scan;
    if (!this.next) {
      this.isRunning = false;
      this.button.hidden = true;
    } else if (count >= this.groups || (this.pages -= 1) <= 0) {
      this.groups = count + MAX_GROUPS;
      this.stop();
    }
  }
}

// --- adding -----------------------------------------------------------------------------------------------------

const AT_ONCE = 2;
const GROUP_FILES = 8;
const GROUP_BYTES = 8 << 20;
const WAIT_S = 20;
const POLL_MS = 1000;
const RECORDS = 500;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

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

const hexOf = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// Browsers compute digests only over TLS, or on this machine; else an older file is the one that was stored.
const isStored = async (file, { sha256, added }) => {
  if (!sha256 || !crypto.subtle) {
    return file.lastModified < Date.parse(added);
  }
  return hexOf(await crypto.subtle.digest("SHA-256", await file.arrayBuffer())) === sha256;
};

class Adding {
  constructor(form) {
    this.form = form;
    this.progress = form.querySelector("[data-progress]");
    this.isStopped = false;
    this.total = 0;
    this.stored = 0;
    this.failed = 0;
    this.existing = 0;
    // One batch, so that the queue page shows the progress of all of them together.
    this.batch = `web-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}-${Math.random().toString(36).slice(2, 8)}`;
  }

  // Returns whether images were stored and none failed.
  async run(files) {
    this.prefix = this.form.elements.prefix.value;
    this.collection = this.form.elements.collection.value;
    const images = files.filter(({ file }) => isImage(file));
    this.others = files.length - images.length;
    this.total = images.length;
    this.progress.hidden = false;
    this.progress.querySelector("ul").replaceChildren();
    this.progress.querySelector("[data-stop]").hidden = false;
    this.show();
    this.known = await this.records(images);
    const groups = groupsOf(images);
    const work = async () => {
      while (groups.length && !this.isStopped) {
        await this.send(groups.shift());
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    this.progress.querySelector("[data-stop]").hidden = true;
    this.show(this.isStopped ? "Stopped" : "Done");
  }

  stop() {
    this.isStopped = true;
  }

  // Returns the stored images of the folders by filepath, so that a folder that is added again continues.
  async records(images) {
    const known = new Map();
    const folders = new Set(images.map(({ path }) => path.split("/")).filter((parts) => parts.length > 1).map(([top]) => `${top}/`));
    for (const folder of folders) {
      let cursor = "";
      while (cursor !== null && !this.isStopped) {
        const query = new URLSearchParams({ collection: this.collection, filepath_prefix: this.prefix + folder, limit: RECORDS, cursor });
        const reply = await replyOf(`/images?${query}`);
        if (reply.retryAfter) {
          await sleep(reply.retryAfter * 1000);
        } else {
          // A collection that does not exist yet has none.
          reply.result.forEach((record) => known.set(record.filepath, record));
          cursor = reply.cursor ?? null;
        }
      }
    }
    return known;
  }

  async isStored({ file, path }) {
    const record = this.known.get(this.prefix + path);
    return record !== undefined && isStored(file, record);
  }

  // Sends those of some files that are not stored, in one request, which answers when they are.
  async send(files) {
    const group = [];
    for (const each of files) {
      if (await this.isStored(each)) {
        this.existing += 1;
      } else {
        group.push(each);
      }
    }
    this.show();
    if (group.length) {
      await this.sendAll(group);
    }
  }

  async sendAll(group) {
    const data = new FormData();
    data.append("wait", WAIT_S);
    data.append("collection", this.collection);
    group.forEach(({ file, path }, index) => {
      data.append(`images[${index}]`, file);
      data.append(`filepaths[${index}]`, this.prefix + path);
    });
    const reply = await replyOf("/add", { method: "POST", body: data, headers: { "X-Batch-ID": this.batch } });
    if (reply.retryAfter && !this.isStopped) {
      await sleep(reply.retryAfter * 1000);
      await this.sendAll(group);
      return;
    }
    if (!reply.result?.length) {
      group.forEach((each) => this.fail(each, reply.error[0]));
      return;
    }
    await Promise.all(reply.result.map((outcome) => this.finish(group[outcome.item], outcome)));
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
    bar.value = this.total ? this.stored + this.failed + this.existing : 1;
    const parts = [`${state}: ${this.stored} of ${this.total} images stored`];
    if (this.existing) {
      parts.push(`${this.existing} were stored already`);
    }
    if (this.failed) {
      parts.push(`${this.failed} failed`);
    }
    if (this.others) {
      parts.push(`${this.others} other ${this.others === 1 ? "file" : "files"} skipped`);
    }
    this.progress.querySelector("output").textContent = parts.join(", ");
  }
}

const addAdding = (form) => {
  form.hidden = false;
  let adding = null;
  const start = async (files) => {
    adding?.stop();
    form.closest("section").hidden = false;
    form.classList.remove("added");
    const current = new Adding(form);
    adding = current;
    await current.run(files);
    if (adding === current) {
      await showAdded(current);
    }
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("add", ({ detail }) => start(detail));
  form.querySelector("[data-stop]").addEventListener("click", () => adding?.stop());
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      start([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      input.value = "";
    });
  }
};

// Shows the added images: on the search page, the form and how many there are to search among.
const showAdded = async ({ collection, stored, existing, failed }) => {
  if (collection !== collectionOf()) {
    if (stored && !failed) {
      location.assign(`${location.pathname}?${new URLSearchParams({ collection })}`);
    }
    return;
  }
  const search = searchForm();
  if (!search) {
    await refresh("#browse");
  } else if (stored + existing) {
    search.hidden = false;
    const lead = document.querySelector("[data-begin]");
    if (lead) {
      lead.textContent = "Now search with a screenshot, a crop or a copy of one";
      search.before(lead);
    }
    document.querySelector("[data-add]").classList.add("added");
    if (!document.querySelector("[data-answer]")) {
      await refresh("#results");
    }
    search.querySelector("input[type=file]").focus();
  }
};

// --- queue ------------------------------------------------------------------------------------------------------

const POINTS = 120;
const REFRESH_MS = 2000;
const numberOf = (part, name) => Number(part.querySelector(`[data-number=${name}]`).value);

// A line of the last values, scaled to the highest one.
class Plot {
  constructor(figure) {
    this.figure = figure;
    this.values = [];
    this.svg = svgElement("svg", { class: "plot", role: "img", preserveAspectRatio: "none", viewBox: `0 -5 ${POINTS - 1} 110` });
    this.area = this.svg.appendChild(svgElement("polygon", {}));
    this.line = this.svg.appendChild(svgElement("polyline", {}));
    figure.append(this.svg);
  }

  add(value) {
    this.values.push(value);
    this.values.splice(0, this.values.length - POINTS);
    const top = Math.max(1, ...this.values);
    const first = POINTS - this.values.length;
    const points = this.values.map((each, index) => `${first + index},${100 - 100 * each / top}`);
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("points", `${first},100 ${points.join(" ")} ${POINTS - 1},100`);
    const { label, unit } = this.figure.dataset;
    const [now, highest] = [value, Math.max(...this.values)].map((number) => `${number.toLocaleString("en")}${unit}`);
    this.figure.querySelector("b").textContent = `${now}, highest ${highest}`;
    this.svg.setAttribute("aria-label", `${label} in the last four minutes: now ${now}, highest ${highest}`);
  }
}

// Plots the numbers of the last minutes, and refreshes the page's parts while it is visible.
const watchQueue = async (plots) => {
  const drawn = [...plots.querySelectorAll("[data-plot]")].map((figure) => new Plot(figure));
  plots.hidden = false;
  while (plots.isConnected) {
    for (const plot of drawn) {
      plot.add(numberOf(document, plot.figure.dataset.plot));
    }
    await sleep(REFRESH_MS);
    while (document.hidden) {
      await sleep(REFRESH_MS);
    }
    const failed = numberOf(document, "failed");
    // A button that has the focus must not be replaced.
    const isUsed = (selector) => document.querySelector(selector).contains(document.activeElement);
    await refresh("#numbers", ...(isUsed("#batches") ? [] : ["#batches"])).catch(() => {});
    if (!plots.isConnected) {
      return;
    }
    // Replaced each time, the alert would be announced each time.
    if (numberOf(document, "paused") !== numberOf(document, "shown-pause") && !isUsed("#pause")) {
      await refresh("#pause").catch(() => {});
    }
    if (numberOf(document, "failed") !== failed) {
      await refresh("#failed").catch(() => {});
    }
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
  "[data-answer]": outlineParts,
  "[data-paste]": addPaste,
  "[data-scripted]": (part) => { part.hidden = false; },
  "[data-select]": (box) => { box.hidden = false; },
  "[data-keep]": addKeep,
  "[data-distinct]": addDistinct,
  "[data-duplicates]": (section) => section.querySelector("[data-scan]") && new Scan(section).run(),
  "[data-delete-selected]": addSelection,
  "[data-delete]": addDelete,
  "[data-add]": addAdding,
  "[data-plots]": watchQueue,
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

// On a phone the links are wider than the window.
const currentLink = document.querySelector("nav ul [aria-current]");
if (currentLink) {
  const list = currentLink.closest("ul");
  list.scrollLeft = currentLink.offsetLeft - list.offsetLeft;
}
enhance(document);
