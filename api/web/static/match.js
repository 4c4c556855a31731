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

// --- start ------------------------------------------------------------------------------------------------------

const ENHANCEMENTS = {
  "[data-chooser]": addChooser,
  "[data-search]": addSearch,
  "[data-compare]": (form) => form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, "#results");
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
