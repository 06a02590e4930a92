// The portal: files are sent as soon as they are chosen, pasted or dropped; words outlive a reload.
// Without this script every form works all the same.
"use strict";

document.documentElement.classList.add("js");

const kept = {
  read(name) {
    try {
      return JSON.parse(sessionStorage.getItem(`help-${name}`)) || {};
    } catch {
      return {};
    }
  },
  write(name, value) {
    try {
      sessionStorage.setItem(`help-${name}`, JSON.stringify(value));
    } catch {
      // a private window: then a reload forgets
    }
  },
  forget(name) {
    try {
      sessionStorage.removeItem(`help-${name}`);
    } catch {
      // nothing was kept
    }
  },
};

function draw(canvas, file) {
  if (!file.type.startsWith("image/") || !window.createImageBitmap) return;
  createImageBitmap(file).then((picture) => {
    const side = Math.min(picture.width, picture.height);
    const left = (picture.width - side) / 2;
    const top = (picture.height - side) / 2;
    canvas.getContext("2d").drawImage(picture, left, top, side, side, 0, 0, 88, 88);
    picture.close();
  }, () => {});
}

class Files {
  constructor(form, changed) {
    this.form = form;
    this.box = form.querySelector(".files");
    this.list = this.box.querySelector("[data-files]");
    this.changed = changed;
    this.pending = 0;
    this.after = null;
    this.box.addEventListener("change", (event) => this.chosen(event.target));
    this.list.addEventListener("click", (event) => this.clicked(event));
  }

  get key() {
    return this.form.elements.form.value;
  }

  said(name) {
    return this.box.querySelector(`[data-said="${name}"]`).textContent;
  }

  get known() {
    return [...this.list.querySelectorAll("li[data-id]")].map((line) => ({
      id: line.dataset.id,
      name: line.querySelector("bdi").textContent,
      size: line.querySelector("small").textContent,
    }));
  }

  chosen(input) {
    if (input.type !== "file") return;
    for (const file of input.files) this.add(file);
    input.value = "";
  }

  line() {
    const line = this.box.querySelector("[data-line]").content.cloneNode(true).firstElementChild;
    this.list.append(line);
    return line;
  }

  show(file) {
    const line = this.line();
    line.dataset.id = file.id;
    line.classList.add("done");
    line.querySelector("bdi").textContent = file.name;
    line.querySelector("small").textContent = file.size;
  }

  add(file) {
    const line = this.line();
    line.querySelector("bdi").textContent = file.name || "screenshot.png";
    line.querySelector("small").textContent = `${(file.size / 1048576).toFixed(1)} MB`;
    draw(line.querySelector("canvas"), file);
    const request = new XMLHttpRequest();
    request.open("POST", `/help/files?form=${this.key}`);
    request.setRequestHeader("X-File-Name", encodeURIComponent(file.name || "screenshot.png"));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) {
        line.querySelector("progress").value = (100 * event.loaded) / event.total;
      }
    });
    request.addEventListener("loadend", () => this.ended(line, request));
    line.abort = () => request.abort();
    this.pending += 1;
    request.send(file);
  }

  ended(line, request) {
    this.pending -= 1;
    let told = {};
    try {
      told = JSON.parse(request.responseText);
    } catch {
      // no answer of ours
    }
    if (request.status === 201) {
      for (const same of this.list.querySelectorAll(`li[data-id="${told.id}"]`)) same.remove();
      line.dataset.id = told.id;
      line.classList.add("done");
      line.querySelector("bdi").textContent = told.name;
    } else {
      line.classList.add("failed");
      line.querySelector("small").textContent = told.error || this.said("lost");
    }
    this.changed();
    if (!this.pending && this.after) this.after();
  }

  clicked(event) {
    const button = event.target.closest("[data-drop]");
    if (!button) return;
    event.preventDefault();
    const line = button.closest("li");
    if (line.dataset.id) {
      fetch(`/help/files/${line.dataset.id}/drop?form=${this.key}`, { method: "POST" });
    } else if (line.abort) {
      line.abort();
    }
    line.remove();
    this.changed();
  }
}

function fields(form) {
  return [...form.elements].filter((field) =>
    field.name && !["hidden", "file", "submit"].includes(field.type));
}

function keep(form, files) {
  const name = form.dataset.keep;
  if (!name) return () => {};
  const before = kept.read(name);
  if (before.form && !("shownAgain" in form.dataset)) {
    form.elements.form.value = before.form;
    for (const file of before.files || []) files.show(file);
    for (const field of fields(form)) {
      const value = (before.words || {})[field.name];
      if (value === undefined) continue;
      if (field.type === "radio") field.checked = field.value === value;
      else if (value && (!field.value || field.name === "since")) field.value = value;
    }
    const more = form.querySelector("details");
    if (more && [...more.querySelectorAll("input, textarea")].some((each) => each.value)) {
      more.open = true;
    }
  }
  const save = () => {
    const words = {};
    for (const field of fields(form)) {
      if (field.type !== "radio" || field.checked) words[field.name] = field.value;
    }
    kept.write(name, { form: form.elements.form.value, words, files: files.known });
  };
  form.addEventListener("input", save);
  return save;
}

function prepare(form) {
  let save = () => {};
  const files = new Files(form, () => save());
  save = keep(form, files);
  const button = form.querySelector("button.primary");
  const label = button.textContent;
  const busy = (words) => {
    button.disabled = Boolean(words);
    button.textContent = words || label;
  };
  form.addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.name === "drop") return;
    if (button.disabled && !files.after) {
      event.preventDefault();
      return;
    }
    if (files.pending) {
      event.preventDefault();
      busy(files.said("waits"));
      files.after = () => {
        files.after = null;
        busy("");
        form.requestSubmit();
      };
      return;
    }
    busy(files.said("sends"));
  });
  window.addEventListener("pageshow", () => busy(""));
  return files;
}

const forms = [...document.querySelectorAll("form[data-upload]")].map(prepare);

if (forms.length) {
  const [files] = forms;
  const over = (is) => files.box.classList.toggle("over", is);
  document.addEventListener("paste", (event) => {
    for (const file of event.clipboardData.files) files.add(file);
    if (event.clipboardData.files.length) event.preventDefault();
  });
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false);
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    over(false);
    for (const file of event.dataTransfer.files) files.add(file);
  });
}

for (const done of document.querySelectorAll("[data-forget]")) kept.forget(done.dataset.forget);

const trouble = document.getElementById("trouble");
if (trouble) trouble.focus();
