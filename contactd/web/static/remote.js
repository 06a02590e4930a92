// The engineer's page of remote help: noVNC on a socket of the broker, and what is beside it.
// What anybody may do is decided by the broker and by the user's own helper, never here.

const find = (id) => document.getElementById(id);
const body = document.body;
const path = `/desk/remote/${body.dataset.session}`;
const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const RETRY_S = [1, 2, 4, 8, 10];
const ALIVE_MS = 60_000; // how often the broker hears that somebody is here
const PACE_MS = 8; // between typed characters; measured: 2 ms lose none either
const MONITOR = 1.78; // a screen much wider than this is several beside one another
const FINAL = 4000; // codes from here on say how it ended; 4006 and 4007 do not
const NOT_FINAL = new Set([4006, 4007, 4009]);

const say = (name, values = {}) => {
  const found = document.querySelector(`[data-say="${CSS.escape(name)}"]`);
  const text = found ? found.textContent : "";
  return Object.entries(values).reduce((all, [key, value]) => all.replace(`{${key}}`, () => value), text);
};
const show = (id, isShown) => {
  find(id).hidden = !isShown;
};

async function admission(purpose) {
  const answer = await fetch(`${path}/admission`, {
    method: "POST",
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    body: `purpose=${purpose}`,
  });
  if (answer.status === 401 || answer.redirected) location.reload();
  if (!answer.ok) throw new Error(`not admitted: ${answer.status}`);
  return (await answer.json()).admission;
}

let state = { state: body.dataset.state, you: "", you_leg: 0, rights: [], legs: [] };
let ice = [];

// What is told by the broker, and told to it.
const line = {
  socket: null,
  tries: 0,
  isOver: false,
  async open() {
    try {
      const secret = await admission("desk");
      const socket = new WebSocket(`${scheme}//${location.host}${path}/live`);
      this.socket = socket;
      socket.onopen = () => socket.send(JSON.stringify({ type: "hello", admission: secret }));
      socket.onmessage = (event) => {
        this.tries = 0;
        const message = JSON.parse(event.data);
        HEARD[message.type]?.(message);
      };
      socket.onclose = (event) => this.closed(event.code);
    } catch {
      this.again();
    }
  },
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  },
  closed(code) {
    if (code >= FINAL && !NOT_FINAL.has(code)) {
      this.isOver = true;
      draw();
      return;
    }
    this.again();
  },
  again() {
    if (this.isOver || state.state === "ended") return;
    if (this.tries > 1) cover.say("lost");
    const wait = RETRY_S[Math.min(this.tries, RETRY_S.length - 1)];
    this.tries += 1;
    setTimeout(() => this.open(), wait * 1000);
  },
};

const HEARD = {
  welcome(message) {
    ice = message.ice || [];
    find("log").replaceChildren();
    files.known.clear();
    find("file-list").replaceChildren();
  },
  state(message) {
    state = message;
    draw();
  },
  chat(message) {
    talk.add(message);
  },
  file(message) {
    files.add(message);
  },
  clipboard(message) {
    find("theirs").value = message.text;
    find("clip").open = true;
  },
  answered(message) {
    tell(say(message.yes ? "answer-yes" : "answer-no"));
  },
  signal(message) {
    media.signal(message);
  },
  error(message) {
    tell(say(`error-${message.text}`) || say("error-refused"));
  },
};

let fading = 0;
function tell(text) {
  const box = find("error");
  box.textContent = text;
  box.hidden = !text;
  clearTimeout(fading);
  fading = setTimeout(() => {
    box.hidden = true;
  }, 12_000);
}

// Where no screen is, the page says why, and what to do.
const cover = {
  say(what, next = what) {
    show("cover", true);
    find("what").textContent = say(`what-${what}`);
    find("next").textContent = say(`next-${next}`);
  },
  draw() {
    const { state: now, you } = state;
    if (now === "ended") {
      this.say("ended");
      if (state.ending) find("what").textContent = say(`ending-${state.ending}`);
    } else if (state.asked === "consent") {
      this.say("consent");
      if (state.mode !== "view") novnc().catch(() => {});
    } else if (you === "waiting" && !state.engineer) this.say("unclaimed");
    else if (you === "waiting") this.say("waiting");
    else if (now === "agreed") this.say("agreed", state.mode === "view" ? "agreed-view" : "agreed");
    else this.say(now);
    const looks = body.dataset.mayLook === "1" && you === "waiting" && now === "active";
    show("look", looks);
  },
};

function draw() {
  const leg = state.you_leg || 0;
  const mine = leg ? (state.legs || []).find((each) => each.leg === leg) : null;
  const rights = mine ? mine.rights : [];
  const badge = find("state");
  badge.className = `tag remote-${state.state}`;
  badge.textContent = say(`state-${state.state}`);
  const names = [...(state.engineers || [])];
  for (const each of state.lookers || []) names.push(`${each} (${say("looker")})`);
  find("who").textContent = names.join(", ") || state.engineer || "";
  const counts = find("counts");
  counts.hidden = state.state !== "active";
  if (state.counts) counts.textContent = say("counts", state.counts);
  const controls = rights.includes("control");
  const isHelping = state.you === "engineer";
  show("asking", state.state === "active" && Boolean(state.asked) && state.asked !== "consent");
  find("asking").textContent = say("asked-consent");
  show("typing", Boolean(screen.rfb) && controls);
  show("clip", rights.includes("clipboard"));
  show("more", isHelping && state.state === "active");
  show("end", isHelping && state.state !== "ended");
  show("teach", isHelping && media.canTeach && state.state !== "ended" && state.state !== "invited");
  find("has-rights").textContent = say("rights", { rights: rights.map((each) => say(`right-${each}`)).join(", ") });
  for (const button of document.querySelectorAll("[data-ask]")) {
    button.hidden = state.mode === "view" || rights.includes(button.dataset.ask);
  }
  show("leave", Boolean(screen.rfb) && controls);
  hand.draw();
  if (screen.rfb) screen.rfb.viewOnly = screen.isWatching || !controls;
  const isOpen = state.state === "active" && leg > 0;
  if (!isOpen) {
    screen.shut();
    media.end();
  } else if (state.mode === "view") media.watch(leg);
  else screen.open(leg);
  if (!isOpen || !(screen.isLive || media.isLive)) cover.draw();
  else show("cover", false);
  for (const form of [find("chat"), find("offer")]) {
    const isOff = state.state === "ended" || state.state === "invited";
    for (const each of form.elements) each.disabled = isOff || (form.id === "offer" && !isHelping);
  }
  if (state.state === "ended") {
    for (const each of document.querySelectorAll(".cover form, #chat, #offer")) each.hidden = true;
  }
}

// The picture. noVNC is fetched when the user is asked, not before: it weighs more than all else.
const novnc = () => import("./vendor/novnc/core/rfb.js");
const screen = {
  rfb: null,
  leg: 0,
  isLive: false,
  isOpening: false,
  isWatching: false,
  async open(leg) {
    if ((this.leg === leg && this.rfb) || this.isOpening) return;
    this.shut();
    this.isOpening = true;
    try {
      const { default: RFB } = await novnc();
      const secret = await admission("screen");
      const socket = new WebSocket(`${scheme}//${location.host}${path}/screen`);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        socket.send(JSON.stringify({ type: "hello", admission: secret }));
        this.begin(RFB, socket, leg);
      };
      socket.onerror = () => this.shut();
      setTimeout(() => {
        this.isOpening = false;
      }, 3000);
    } catch {
      this.isOpening = false; // the next state tries again
    }
  },
  begin(RFB, socket, leg) {
    const rfb = new RFB(find("screen"), socket, { shared: true });
    this.rfb = rfb;
    this.leg = leg;
    this.isOpening = false;
    rfb.showDotCursor = true;
    rfb.background = "transparent";
    rfb.viewOnly = this.isWatching;
    rfb.addEventListener("connect", () => {
      this.isLive = true;
      show("tools", true);
      draw();
      this.size();
      rfb.focus();
    });
    rfb.addEventListener("disconnect", () => {
      if (this.rfb === rfb) this.gone();
    });
  },
  gone() {
    this.rfb = null;
    this.leg = 0;
    this.isLive = false;
    show("tools", false);
    typing.stop();
    keys.forget();
    draw();
  },
  shut() {
    const rfb = this.rfb;
    if (!rfb) return;
    this.gone();
    try {
      rfb.disconnect();
    } catch {
      // it is gone already
    }
    find("screen").replaceChildren();
  },
  // One monitor of several is shown by a frame around a part of the picture.
  size() {
    if (!this.rfb) return;
    const box = find("screen");
    const frame = find("frame");
    const canvas = box.querySelector("canvas");
    if (!canvas) return;
    const count = this.monitors(canvas);
    const chosen = find("monitor").value;
    const isFull = find("fit").value === "full";
    const isPart = !isFull && chosen !== "" && count > 1;
    show("pan", isFull);
    if (!isFull) pan(false);
    this.rfb.scaleViewport = !isFull;
    this.rfb.clipViewport = isFull;
    const width = frame.clientWidth;
    const height = frame.clientHeight;
    const shown = isPart ? Math.min((width * count), (height * canvas.width) / canvas.height) : width;
    box.style.width = `${shown}px`;
    box.style.left = isPart ? `${width / 2 - ((Number(chosen) + 0.5) * shown) / count}px` : "0px";
  },
  monitors(canvas) {
    const count = Math.max(1, Math.round(canvas.width / canvas.height / MONITOR));
    const list = find("monitor");
    if (list.options.length !== (count > 1 ? count + 1 : 1)) {
      list.length = 1;
      for (let each = 0; count > 1 && each < count; each += 1) {
        list.add(new Option(say("monitor", { number: each + 1 }), String(each)));
      }
      list.hidden = count < 2;
    }
    return count;
  },
};

function pan(isOn) {
  find("pan").setAttribute("aria-pressed", String(isOn));
  if (screen.rfb) screen.rfb.dragViewport = isOn;
}

// Keys that a browser keeps for itself, and those that are held for the next one.
const SYMS = {
  ctrl: [0xffe3, "ControlLeft"], alt: [0xffe9, "AltLeft"], shift: [0xffe1, "ShiftLeft"],
  super: [0xffeb, "MetaLeft"], delete: [0xffff, "Delete"], tab: [0xff09, "Tab"],
  escape: [0xff1b, "Escape"], print: [0xff61, "PrintScreen"],
};
const symOf = (name) => {
  if (SYMS[name]) return SYMS[name];
  if (/^f\d+$/.test(name)) return [0xffbd + Number(name.slice(1)), name.toUpperCase()];
  return [name.codePointAt(0), `Key${name.toUpperCase()}`];
};
const HELD = [[0xffe3, "ControlLeft"], [0xffe4, "ControlRight"], [0xffe9, "AltLeft"],
  [0xffea, "AltRight"], [0xffe1, "ShiftLeft"], [0xffe2, "ShiftRight"], [0xffeb, "MetaLeft"],
  [0xffec, "MetaRight"]];
const keys = {
  press(combination) {
    if (!screen.rfb) return;
    const all = combination.toLowerCase().split("+").map(symOf);
    for (const [sym, code] of all) screen.rfb.sendKey(sym, code, true);
    for (const [sym, code] of all.reverse()) screen.rfb.sendKey(sym, code, false);
    this.forget();
    find("keys").open = false;
    screen.rfb.focus();
  },
  hold(button) {
    const isOn = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isOn));
    screen.rfb?.sendKey(...symOf(button.dataset.hold), isOn);
  },
  forget() {
    for (const button of document.querySelectorAll("[data-hold][aria-pressed=true]")) {
      button.setAttribute("aria-pressed", "false");
      screen.rfb?.sendKey(...symOf(button.dataset.hold), false);
    }
  },
  // Back to this page: nothing may stay pressed over there.
  leave() {
    if (!screen.rfb) return;
    screen.rfb.blur();
    window.dispatchEvent(new Event("blur")); // noVNC lets go of what it holds
    for (const [sym, code] of HELD) screen.rfb.sendKey(sym, code, false);
    document.querySelector("#keys > summary").focus();
  },
};

// Text that no keyboard here has: each character as a key of its own (RFC 6143 section 7.5.4). The
// user's helper types all that comes as Unicode, in its order; another VNC server knows old keys.
const keysym = (sign) => {
  const point = sign.codePointAt(0);
  if (state.mode === "control") return 0x01000000 + point;
  if (sign === "\n") return 0xff0d;
  if (sign === "\t") return 0xff09;
  const isLatin = (point >= 0x20 && point < 0x7f) || (point >= 0xa0 && point < 0x100);
  return isLatin ? point : 0x01000000 + point;
};
const typing = {
  isOn: false,
  stop() {
    this.isOn = false;
  },
  async start() {
    if (this.isOn || !screen.rfb) return;
    const field = find("text");
    const signs = [...field.value.normalize("NFC").replaceAll(/\r\n?/g, "\n")].filter(
      (each) => each >= " " || each === "\n" || each === "\t");
    let done = 0;
    this.isOn = true;
    keys.forget();
    show("untype", true);
    field.readOnly = true;
    while (this.isOn && done < signs.length && screen.rfb && !screen.rfb.viewOnly && !state.asked) {
      screen.rfb.sendKey(keysym(signs[done]));
      done += 1;
      if (done % 10 === 0) find("typed").textContent = say("typed", { done, all: signs.length });
      await new Promise((go) => setTimeout(go, PACE_MS));
    }
    const isAll = done === signs.length;
    this.isOn = false;
    field.readOnly = false;
    field.value = isAll ? "" : signs.slice(done).join("");
    find("typed").textContent = isAll ? say("typed", { done, all: done }) : say("stopped", { done });
    show("untype", false);
  },
};

const talk = {
  add(message) {
    const log = find("log");
    const isMine = message.who === `user:${body.dataset.user}`;
    const item = document.createElement("li");
    item.className = isMine ? "mine" : "";
    const who = document.createElement("small");
    const at = new Date(message.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const name = message.who === "requester" ? say("user") : message.who.replace(/^user:/, "");
    who.textContent = `${isMine ? say("me") : name} · ${at}`;
    const text = document.createElement("p");
    text.textContent = message.text;
    item.append(who, text);
    log.append(item);
    log.scrollTop = log.scrollHeight;
    show("no-talk", false);
    if (!isMine) find("talk").open = true;
  },
};

const files = {
  known: new Map(),
  add(file) {
    this.known.set(file.number, file);
    const item = document.createElement("li");
    const name = document.createElement("strong");
    name.textContent = file.name;
    const how = document.createElement("small");
    how.textContent = ` ${Math.max(1, Math.round(file.size / 1000))} kB · ${say(`file-${file.state}`)} `;
    item.append(name, how);
    item.dataset.file = file.number;
    if (file.from === "requester") this.answers(item, file);
    const old = document.querySelector(`#file-list [data-file="${file.number}"]`);
    if (old) old.replaceWith(item);
    else find("file-list").append(item);
    find("file-count").textContent = this.known.size;
    show("no-files", false);
    if (file.from === "requester" && file.state === "offered") find("files").open = true;
  },
  answers(item, file) {
    if (file.state === "accepted") {
      const link = document.createElement("a");
      link.href = `${path}/files/${file.number}`;
      link.textContent = say("save");
      link.download = "";
      item.append(link);
    }
    if (file.state !== "offered") return;
    for (const [said, word] of [["yes", "accept"], ["no", "refuse"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "second small";
      button.textContent = say(word);
      button.addEventListener("click", () => this.answer(file, said));
      item.append(button, " ");
    }
  },
  async answer(file, said) {
    const answer = await fetch(`${path}/files/${file.number}/answer`, {
      method: "POST", redirect: "manual", body: new URLSearchParams({ do: said }),
    });
    if (answer.status >= 400) tell(say("error-refused"));
  },
  async offer(form) {
    const answer = await fetch(form.action, {
      method: "POST", redirect: "manual", body: new FormData(form),
    });
    const isTaken = answer.type === "opaqueredirect" || answer.ok;
    if (isTaken) form.reset();
    find("offered").textContent = isTaken ? say("offered") : "";
    if (!isTaken) tell(say("error-file"));
  },
};

const hand = {
  key: "",
  draw() {
    const waiting = state.waiting || [];
    const key = JSON.stringify(waiting);
    if (key === this.key) return;
    this.key = key;
    const list = find("to");
    list.replaceChildren();
    if (!waiting.length) list.add(new Option(say("nobody"), ""));
    for (const each of waiting) list.add(new Option(each.name, each.user));
  },
};

// The streams of bare browsers, if this installation has the module for it.
const media = {
  module: null,
  viewer: null,
  teacher: null,
  leg: 0,
  isLive: false,
  get canTeach() {
    return Boolean(this.module?.teacher && navigator.mediaDevices?.getDisplayMedia);
  },
  async load() {
    try {
      this.module = await import("./media.js");
    } catch {
      this.module = null;
    }
    draw();
  },
  send(leg, data) {
    line.send({ type: "signal", leg, data });
  },
  watch(leg) {
    if (this.leg === leg) return;
    this.end();
    if (!this.module?.viewer) {
      tell(say("error-media"));
      return;
    }
    this.leg = leg;
    const video = find("video");
    video.hidden = false;
    video.addEventListener("playing", () => {
      this.isLive = true;
      draw();
    }, { once: true });
    this.viewer = this.module.viewer({
      video, leg, ice, send: (number, data) => this.send(number, data),
    });
  },
  signal(message) {
    if (message.leg === 0) this.teacher?.signal(0, message.data);
    else if (message.leg === this.leg) this.viewer?.signal(message.leg, message.data);
  },
  end() {
    this.viewer?.end();
    this.viewer = null;
    this.leg = 0;
    this.isLive = false;
    find("video").hidden = true;
  },
  async teach() {
    const isOn = this.teacher !== null;
    if (isOn) {
      this.teacher.end();
      this.taught();
      return;
    }
    try {
      line.send({ type: "teach", on: true });
      this.teacher = this.module.teacher({
        ice, send: (leg, data) => this.send(leg, data), onEnd: () => this.taught(),
      });
      await this.teacher.start();
      find("teach").setAttribute("aria-pressed", "true");
    } catch {
      this.taught();
    }
  },
  taught() {
    if (!this.teacher) return;
    this.teacher = null;
    line.send({ type: "teach", on: false });
    find("teach").setAttribute("aria-pressed", "false");
  },
};

function on(id, event, act) {
  find(id).addEventListener(event, act);
}

function begin() {
  for (const name of ["fit", "monitor"]) on(name, "change", () => screen.size());
  on("pan", "click", () => pan(find("pan").getAttribute("aria-pressed") !== "true"));
  on("whole", "click", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.querySelector(".stagebox").requestFullscreen().then(() => screen.rfb?.focus());
  });
  on("watch", "click", () => {
    screen.isWatching = !screen.isWatching;
    find("watch").setAttribute("aria-pressed", String(screen.isWatching));
    line.send({ type: "view_only", on: screen.isWatching });
    draw();
  });
  on("press", "click", (event) => event.target.dataset.press && keys.press(event.target.dataset.press));
  on("held", "click", (event) => event.target.dataset.hold && keys.hold(event.target));
  on("type", "submit", (event) => {
    event.preventDefault();
    typing.start();
  });
  on("untype", "click", () => typing.stop());
  on("text", "keydown", (event) => {
    if (event.key === "Enter" && event.ctrlKey && !event.isComposing) typing.start();
  });
  on("chat", "submit", (event) => {
    event.preventDefault();
    const field = find("say");
    if (field.value.trim() && line.send({ type: "chat", text: field.value.trim() })) field.value = "";
  });
  on("offer", "submit", (event) => {
    event.preventDefault();
    files.offer(event.target);
  });
  on("give", "submit", (event) => {
    event.preventDefault();
    line.send({ type: "clipboard", text: find("ours").value });
  });
  on("take", "click", async () => {
    try {
      await navigator.clipboard.writeText(find("theirs").value);
    } catch {
      find("theirs").select();
      tell(say("error-read"));
    }
  });
  on("hand", "submit", (event) => {
    event.preventDefault();
    if (find("to").value) line.send({ type: "ask", kind: "hand_over", to: find("to").value });
  });
  on("look", "click", () => line.send({ type: "look" }));
  on("teach", "click", () => media.teach());
  on("end", "submit", (event) => {
    if (line.send({ type: "end" })) event.preventDefault(); // else the form itself is sent
  });
  for (const button of document.querySelectorAll("[data-ask]")) {
    button.addEventListener("click", () => line.send({
      type: "ask", kind: "rights", rights: [button.dataset.ask],
    }));
  }
  document.addEventListener("keydown", (event) => {
    const isLeaving = event.ctrlKey && event.altKey && event.shiftKey;
    if (!isLeaving || !find("screen").contains(document.activeElement)) return;
    event.stopPropagation();
    event.preventDefault();
    keys.leave();
  }, true);
  document.addEventListener("click", (event) => {
    if (!find("keys").contains(event.target)) find("keys").open = false;
  });
  new ResizeObserver(() => screen.size()).observe(find("frame"));
  let moved = 0;
  for (const kind of ["pointermove", "keydown"]) {
    document.addEventListener(kind, () => {
      if (state.you !== "engineer" || Date.now() - moved < ALIVE_MS) return;
      moved = Date.now();
      line.send({ type: "alive" });
    }, { capture: true, passive: true });
  }
  hand.draw();
  draw();
  media.load();
  if (state.state !== "ended") line.open();
}

begin();
