// The user's page of remote help: follows the session, asks its user, shares the screen in the
// browser. Without this script the page loads itself again, and every form works all the same.
const root = document.documentElement;
const body = document.body;
const own = body.dataset.own;
const mode = body.dataset.mode;
const find = (id) => document.getElementById(id);
const RETRY_S = [1, 2, 4, 8, 10];
const LOOK_S = 15; // also when nothing was told

root.classList.add("js");

const words = {
  question(ask) {
    const text = document.querySelector(`[data-question="${CSS.escape(ask.kind)}"]`).textContent;
    const name = ask.file ? ask.file.name : "";
    return text.split("{engineer}").map((each) => each.replace("{file}", () => name))
      .join(ask.engineer || "");
  },
  say(name) {
    const found = document.querySelector(`[data-say="${name}"]`);
    return found ? found.textContent : "";
  },
};

// What the server draws. Regions are replaced one by one; the chat only grows, so that what is
// read aloud is what is new.
const page = {
  busy: false,
  again: false,
  get part() {
    return find("part");
  },
  get isOver() {
    return !this.part || this.part.dataset.state === "ended";
  },
  async look() {
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      const answer = await fetch(`${own}/part?seen=${this.part.dataset.seen}`, {
        headers: { Accept: "text/html" },
      });
      if (answer.redirected) location.assign("/s");
      else if (answer.status === 200) this.show(await answer.text());
    } catch {
      // away: the next look comes soon
    } finally {
      this.busy = false;
    }
    if (this.again) {
      this.again = false;
      await this.look();
    }
  },
  show(html) {
    const box = document.createElement("template");
    box.innerHTML = html;
    const fresh = box.content.querySelector("#part");
    if (!fresh) return;
    const before = this.part.dataset.state;
    for (const region of fresh.querySelectorAll("[data-region]")) {
      const old = document.querySelector(`main [data-region="${region.dataset.region}"]`);
      if (!old) continue;
      if (region.id === "log") this.grow(old, region);
      else if (old.outerHTML !== region.outerHTML) old.replaceWith(region);
    }
    Object.assign(this.part.dataset, { ...fresh.dataset });
    counts.draw();
    if (before !== fresh.dataset.state) this.moved(fresh.dataset.state);
  },
  grow(old, fresh) {
    const isAtEnd = old.scrollTop + old.clientHeight >= old.scrollHeight - 30;
    const lines = [...fresh.children].slice(old.children.length);
    old.append(...lines);
    if (isAtEnd) old.scrollTop = old.scrollHeight;
  },
  moved(state) {
    const steps = find("steps");
    if (steps) steps.hidden = state === "active" || state === "ended";
    if (state === "ended") {
      media.end();
      asks.close();
      for (const each of document.querySelectorAll("#stop, #chat, #offer, #screen")) each.remove();
      find("lost").hidden = true;
      if (steps) steps.remove();
      find("two").classList.add("over");
    }
    if (state === "frozen") media.end();
  },
};

const counts = {
  now: null,
  key: "", // of the last state: what is told every other second is mostly the same
  draw() {
    const place = document.querySelector("[data-counts]");
    if (!place || !this.now) return;
    place.hidden = false;
    for (const each of place.querySelectorAll("[data-count]")) {
      each.textContent = this.now[each.dataset.count] || 0;
    }
  },
};

// The socket: what the broker tells at once. Without it the page is looked at more often.
const line = {
  socket: null,
  tries: 0,
  isIn: false,
  async open() {
    if (page.isOver) return;
    let socket;
    try {
      const answer = await fetch(`${own}/admission`, { method: "POST" });
      if (!answer.ok) throw new Error("not admitted");
      const { admission } = await answer.json();
      const scheme = location.protocol === "https:" ? "wss:" : "ws:";
      socket = new WebSocket(`${scheme}//${location.host}/s/live`);
      socket.binaryType = "arraybuffer";
      socket.addEventListener("open", () => {
        socket.send(JSON.stringify({ type: "hello", admission }));
      });
    } catch {
      this.later();
      return;
    }
    this.socket = socket;
    socket.addEventListener("message", (event) => {
      if (typeof event.data === "string") this.heard(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => this.closed(event));
  },
  send(message) {
    if (!this.isIn) return false;
    this.socket.send(message instanceof Object && !(message instanceof ArrayBuffer)
      && !ArrayBuffer.isView(message) ? JSON.stringify(message) : message);
    return true;
  },
  heard(message) {
    const hear = HEARD[message.type];
    if (message.type === "welcome") {
      this.isIn = true;
      this.tries = 0;
      find("lost").hidden = true;
    }
    if (hear) hear(message);
  },
  closed() {
    this.isIn = false;
    this.socket = null;
    media.end();
    asks.close();
    page.look();
    this.later();
  },
  later() {
    if (page.isOver) return;
    if (this.tries > 1) find("lost").hidden = false;
    const wait = RETRY_S[Math.min(this.tries, RETRY_S.length - 1)];
    this.tries += 1;
    setTimeout(() => {
      page.look();
      this.open();
    }, wait * 1000);
  },
};

const HEARD = {
  welcome(message) {
    media.welcome(message);
    page.look();
  },
  state(message) {
    counts.now = message.counts;
    counts.draw();
    media.state(message);
    const key = JSON.stringify([message.state, message.engineers, message.lookers, message.rights,
      message.legs, message.leg, message.helper]);
    if (key !== counts.key) {
      counts.key = key;
      page.look();
    }
  },
  chat() {
    page.look();
  },
  file() {
    page.look();
  },
  ask(message) {
    if (mode === "control") asks.point(message);
    else asks.open(message);
  },
  answered(message) {
    asks.answered(message);
    page.look();
  },
  withdraw(message) {
    asks.answered(message);
  },
  signal(message) {
    media.signal(message);
  },
};

// A question to the user: in their browser unless the helper asks it.
const asks = {
  now: null,
  title: document.title,
  open(ask) {
    const box = find("ask");
    if (!box) return;
    this.now = ask;
    find("ask-text").textContent = words.question(ask);
    const offered = ask.kind === "file" ? [] : ask.rights || ["view"];
    for (const label of box.querySelectorAll("[data-right]")) {
      const isOffered = offered.includes(label.dataset.right);
      label.hidden = !isOffered || offered.length < 2;
      label.querySelector("input").checked = isOffered && label.dataset.right === "view";
    }
    find("ask-fault").hidden = true;
    const yes = find("ask-yes");
    yes.textContent = media.mustChoose(ask) ? yes.dataset.choose : yes.dataset.plain;
    yes.disabled = false;
    document.title = `● ${words.say("title")}`;
    if (!box.open) box.showModal();
    find("ask-no").focus();
  },
  point(ask) {
    this.now = ask;
    const stands = find("stands");
    const note = document.createElement("p");
    note.className = "remark";
    note.id = "pointer";
    note.setAttribute("role", "alert");
    note.textContent = words.say("helper-asks");
    if (!find("pointer") && stands) stands.append(note);
    document.title = `● ${words.say("title")}`;
  },
  async yes() {
    const ask = this.now;
    if (!ask) return;
    const chosen = [...find("ask").querySelectorAll("[data-right]")]
      .filter((label) => label.querySelector("input").checked)
      .map((label) => label.dataset.right);
    find("ask-yes").disabled = true;
    try {
      // The browser wants this in the click itself: it asks what to show.
      if (media.mustChoose(ask)) await media.choose();
    } catch {
      const fault = find("ask-fault");
      fault.textContent = words.say("cancelled");
      fault.hidden = false;
      find("ask-yes").disabled = false;
      return;
    }
    if (this.now !== ask) { // it was withdrawn meanwhile
      media.end();
      return;
    }
    line.send({ type: "answer", ask: ask.ask, yes: true, rights: chosen.length ? chosen : ["view"] });
    this.close();
  },
  no() {
    if (this.now) line.send({ type: "answer", ask: this.now.ask, yes: false, rights: [] });
    this.close();
  },
  answered(message) {
    if (this.now && this.now.ask === message.ask) this.close();
  },
  close() {
    this.now = null;
    document.title = this.title;
    const box = find("ask");
    if (box && box.open) box.close();
    const pointer = find("pointer");
    if (pointer) pointer.remove();
  },
};

// The screen in the browser. `media.js` has the streams; here is when they begin and end: a leg
// that is open gets the picture, and nothing else does.
const media = {
  ice: [],
  sharer: null,
  stream: null, // what is shared
  pupil: null,
  legs: new Set(),
  get canShow() {
    return Boolean(navigator.mediaDevices && navigator.mediaDevices.getDisplayMedia);
  },
  module() {
    return import(`./media.js?v=${body.dataset.version}`);
  },
  welcome(message) {
    this.ice = message.ice || [];
  },
  state(message) {
    this.teach(Boolean(message.teach));
    if (!this.sharer) return;
    const open = new Set((message.legs || []).map((each) => each.leg));
    for (const leg of open) if (!this.legs.has(leg)) this.sharer.open(leg);
    for (const leg of this.legs) if (!open.has(leg)) this.sharer.close(leg);
    const isOver = this.legs.size && !open.size;
    this.legs = open;
    if (isOver) this.end();
  },
  signal(message) {
    if (message.leg === 0) {
      if (this.pupil) this.pupil.signal(0, message.data);
    } else if (this.sharer) {
      this.sharer.signal(message.leg, message.data);
    }
  },
  mustChoose(ask) {
    return mode === "view" && ["consent", "hand_over", "look"].includes(ask.kind) && !this.sharer;
  },
  async choose() {
    const stream = await navigator.mediaDevices.getDisplayMedia({
      video: { frameRate: { max: 15 } }, // a screen is no film
      audio: false,
    });
    const { sharer } = await this.module();
    this.sharer = sharer({
      stream,
      ice: this.ice,
      send: (leg, data) => line.send({ type: "signal", leg, data }),
      record: (leg, bytes) => this.record(leg, bytes),
      failed: () => line.send({ type: "stop", by: "recorder" }),
    });
    for (const track of stream.getTracks()) {
      track.addEventListener("ended", () => { // the browser's own button
        line.send({ type: "stop" });
        this.end();
      });
    }
    this.stream = stream;
    this.sharing();
  },
  sharing() {
    find("picture").srcObject = this.stream;
    this.show("sharing", "sharing-hint");
    find("unshare").hidden = false;
  },
  record(leg, bytes) {
    const frame = new Uint8Array(bytes.byteLength + 1);
    frame[0] = leg;
    frame.set(new Uint8Array(bytes), 1);
    line.send(frame);
  },
  show(title, hint) {
    find("screen-head").textContent = words.say(title);
    find("screen-hint").textContent = hint ? words.say(hint) : "";
    find("screen").hidden = false;
  },
  async teach(isOn) {
    if (isOn === Boolean(this.pupil)) return;
    if (!isOn) {
      this.pupil.end();
      this.pupil = null;
      if (this.sharer) this.sharing(); // as before the lesson
      else if (find("screen")) find("screen").hidden = true;
      return;
    }
    const coming = { signal() {}, end() {} }; // while the module is fetched
    this.pupil = coming;
    const { viewer } = await this.module();
    if (this.pupil !== coming) return; // the lesson is over
    this.pupil = viewer({
      video: find("picture"),
      ice: this.ice,
      send: (leg, data) => line.send({ type: "signal", leg, data }),
      onState() {},
    });
    this.show("watching", "");
  },
  end() {
    if (this.sharer) this.sharer.end();
    if (this.pupil) this.pupil.end();
    this.sharer = null;
    this.stream = null;
    this.pupil = null;
    this.legs = new Set();
    const picture = find("picture");
    if (picture) {
      picture.srcObject = null;
      find("unshare").hidden = true;
      find("screen").hidden = true;
    }
  },
};

// The broker ends what nobody does anything with: who moves on this page is there.
const alive = {
  last: 0,
  moved() {
    const now = Date.now();
    if (now - this.last < 60_000) return;
    if (line.send({ type: "alive" })) this.last = now;
  },
};

function start() {
  const box = find("ask");
  if (box) {
    find("ask-yes").addEventListener("click", () => asks.yes());
    find("ask-no").addEventListener("click", () => asks.no());
    box.addEventListener("cancel", (event) => {
      event.preventDefault();
      asks.no();
    });
  }
  if (mode === "view" && !media.canShow && find("no-capture")) find("no-capture").hidden = false;
  const unshare = find("unshare");
  if (unshare) {
    unshare.addEventListener("click", () => {
      media.end();
      line.send({ type: "stop" });
    });
  }
  const stop = find("stop");
  if (stop) {
    stop.addEventListener("submit", () => {
      media.end(); // here first; the form tells everybody else
      line.send({ type: "stop" });
    });
  }
  const chat = find("chat");
  if (chat) {
    chat.addEventListener("submit", (event) => {
      const field = chat.elements.text;
      const text = field.value.trim();
      if (!text || !line.send({ type: "chat", text })) return; // the form itself is sent
      event.preventDefault();
      field.value = "";
      setTimeout(() => page.look(), 200);
    });
    chat.elements.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      chat.requestSubmit();
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(find(button.dataset.copy).textContent);
      button.textContent = button.dataset.copied;
    });
  }
  const log = find("log");
  if (log) log.scrollTop = log.scrollHeight;
  if (page.isOver) return;
  for (const each of ["pointermove", "keydown", "touchstart"]) {
    document.addEventListener(each, () => alive.moved(), { passive: true });
  }
  setInterval(() => page.look(), LOOK_S * 1000);
  line.open();
}

start();
