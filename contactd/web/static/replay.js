// Plays a recording (FBS 001.001) in noVNC: it is fed what the VNC server sent, at its time.

import RFB from "./vendor/novnc/core/rfb.js";

const MAGIC = "FBS 001.001\n";
const MOST_BLOCK = 1 << 24;
const WINDOW = 1 << 20; // bytes that are read at once
const AHEAD = 4 << 20; // bytes that noVNC may not have drawn yet (it takes 40 MiB)
const QUIET_MS = 2000; // longer than that, nothing happens
const BEGIN_MS = 300; // the first picture is there by then
const STEP_MS = 12; // longer we do not keep the page from answering

// The blocks of a recording, one after the other, from a Blob (which the browser may keep on disk).
class Tape {
  constructor(blob) {
    this.blob = blob;
    this.rewind();
  }

  rewind() {
    this.place = 0;
    this.start = 0;
    this.held = new Uint8Array(0);
    this.isBegun = false;
  }

  // Return `count` bytes from `place`, null if there are not as many.
  async bytes(count) {
    const from = this.place - this.start;
    if (from + count > this.held.length) {
      if (this.place + count > this.blob.size) return null;
      const piece = this.blob.slice(this.place, this.place + Math.max(count, WINDOW));
      this.held = new Uint8Array(await piece.arrayBuffer());
      this.start = this.place;
    }
    const at = this.place - this.start;
    this.place += count;
    return this.held.slice(at, at + count);
  }

  // Return the next block, null at the end, or where the file was cut off.
  async next() {
    if (!this.isBegun) {
      const magic = await this.bytes(MAGIC.length);
      if (!magic || String.fromCharCode(...magic) !== MAGIC) throw new Error("no recording");
      this.isBegun = true;
    }
    const head = await this.bytes(4);
    if (!head) return null;
    const length = new DataView(head.buffer).getUint32(0);
    if (length > MOST_BLOCK) return null;
    const data = await this.bytes(length);
    const rest = await this.bytes(((4 - (length % 4)) % 4) + 4);
    if (!data || !rest) return null;
    return { data, at: new DataView(rest.buffer).getUint32(rest.length - 4) };
  }
}

// What noVNC takes for a WebSocket: it speaks to nobody.
function silent() {
  return {
    binaryType: "arraybuffer", protocol: "", readyState: "open",
    onopen: null, onmessage: null, onerror: null, onclose: null,
    send() {}, close() {},
  };
}

class Player {
  constructor(blob, place, told) {
    this.tape = new Tape(blob);
    this.place = place;
    this.told = told;
    this.at = 0; // ms, of what is shown
    this.speed = 1;
    this.skips = true;
    this.isPlaying = false;
    this.isOver = false;
    this.wanted = BEGIN_MS; // a place to go to, -1: none
    this.next = null;
    this.begin();
  }

  begin() {
    this.rfb?.disconnect();
    this.place.replaceChildren();
    this.tape.rewind();
    this.next = null;
    this.isOver = false;
    this.at = 0;
    this.channel = silent();
    this.rfb = new RFB(this.place, this.channel, { shared: true });
    this.rfb.viewOnly = true;
    this.rfb.scaleViewport = true;
    this.rfb.focusOnClick = false;
    this.rfb.background = "transparent";
  }

  // Bytes that noVNC has and has not drawn.
  get behind() {
    const socket = this.rfb._sock;
    return socket ? socket._rQlen - socket._rQi : 0;
  }

  // Whether all that it was fed is on the screen.
  get isShown() {
    return !this.rfb._flushing && !this.rfb._display?.pending();
  }

  async drawn(most) {
    while (this.behind > most || (most === 0 && !this.isShown)) {
      const before = this.behind;
      await pause(4);
      // What is left of a picture that was cut off will never be drawn.
      if (this.isShown && this.behind === before) return;
    }
  }

  // Show everything up to `until`.
  async feed(until) {
    let since = performance.now();
    for (;;) {
      this.next ??= await this.tape.next();
      if (this.next === null) {
        this.isOver = true;
        break;
      }
      if (this.next.at > until) break;
      const { data } = this.next;
      this.next = null;
      this.channel.onmessage({ data: data.buffer });
      await this.drawn(AHEAD);
      if (performance.now() - since > STEP_MS) {
        await pause(0);
        since = performance.now();
        if (this.wanted >= 0) return; // somebody wants to be elsewhere
      }
    }
    this.at = until;
  }

  async go(to) {
    this.wanted = -1;
    if (to < this.at) this.begin();
    await this.feed(to);
    if (this.wanted < 0) await this.drawn(0);
  }

  // Play for ever: `drawn` is told after each step.
  async run(shown) {
    let last = performance.now();
    for (;;) {
      const now = performance.now();
      const passed = this.isPlaying ? (now - last) * this.speed : 0;
      last = now;
      if (this.wanted >= 0) {
        await this.go(this.wanted);
        last = performance.now();
      } else if (this.isPlaying) {
        await this.feed(this.target(passed));
      }
      shown();
      await pause(this.isPlaying ? 16 : 40);
    }
  }

  target(passed) {
    const to = this.at + passed;
    const gap = this.next ? this.next.at - this.at : 0;
    return this.skips && gap > QUIET_MS ? this.next.at - QUIET_MS / 4 : to;
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const $ = (id) => document.getElementById(id);
const word = (name) => document.querySelector(`#words [data-say="${name}"]`).textContent;
const clock = (ms) => {
  const s = Math.floor(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}`
    : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
};

// Fetch the recording once: going back and forth fetches nothing, and is written down nowhere.
async function load(url, size, told) {
  const answer = await fetch(url, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`answer ${answer.status}`);
  const reader = answer.body.getReader();
  const parts = [];
  for (let got = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    parts.push(new Blob([value]));
    got += value.length;
    told(`${Math.min(100, Math.floor((100 * got) / size))} %`);
  }
}

async function play(box) {
  const [button, at, output, told] = [$("play"), $("at"), $("clock"), $("told")];
  const lasts = Number(box.dataset.lasts);
  let blob;
  try {
    blob = await load(box.dataset.recording, Number(box.dataset.size) || 1, (part) => {
      told.textContent = word("loading").replace("{part}", part);
    });
  } catch {
    told.textContent = word("failed");
    return;
  }
  told.textContent = "";
  const player = new Player(blob, $("screen"));
  let held = false; // the slider, by somebody
  const turn = (on) => {
    player.isPlaying = on;
    button.textContent = on ? button.dataset.pause : button.dataset.play;
  };
  button.addEventListener("click", () => {
    if (!player.isPlaying && player.at >= lasts) player.wanted = 0;
    turn(!player.isPlaying);
  });
  at.addEventListener("input", () => {
    held = true;
    player.wanted = Number(at.value);
    at.setAttribute("aria-valuetext", clock(player.wanted));
  });
  at.addEventListener("change", () => { held = false; });
  $("speed").addEventListener("change", (event) => { player.speed = Number(event.target.value); });
  $("skip").addEventListener("change", (event) => { player.skips = event.target.checked; });
  const shown = () => {
    if (player.isPlaying && player.isOver) turn(false);
    player.at = Math.min(player.at, lasts);
    if (!held && player.wanted < 0) {
      at.value = player.at;
      at.setAttribute("aria-valuetext", clock(player.at));
    }
    output.textContent = `${clock(player.at)} / ${clock(lasts)}`;
    const isCut = player.isOver && player.tape.place < blob.size;
    told.textContent = isCut ? word("cut") : "";
    // For who tests: the place that is on the screen, once all of it is.
    box.dataset.at = player.wanted < 0 && player.isShown ? Math.round(player.at) : "";
  };
  button.disabled = at.disabled = false;
  try {
    await player.run(shown);
  } catch (failure) {
    console.error(failure);
    button.disabled = at.disabled = true;
    told.textContent = word("broken");
  }
}

// A recording that a browser has made does not say how long it is: going to its end finds out.
function measured(video) {
  video.addEventListener("loadedmetadata", () => {
    if (video.duration !== Infinity) return;
    video.addEventListener("timeupdate", () => { video.currentTime = 0; }, { once: true });
    video.currentTime = 1e9;
  }, { once: true });
}

if ($("video")) measured($("video"));
if ($("player")) play($("player"));
