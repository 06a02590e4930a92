// The workbench in the browser: keys, words that are kept, and what the server tells meanwhile.
// Everything else comes drawn, and works without this file.
//
// What a page may declare:
//   data-key="n" or "g t"   on a link, button or field: the key, or two one after the other, that
//                           use it ("ctrl+enter" in its form's fields); data-says: what the list of keys says (else label, title, text)
//   data-opens="id"         on a button: the dialog that it opens
//   data-keep="name"        on a textarea: its words survive until its form is sent
//   data-live-ticket="no."  on any element: "ticket-changed" is raised on <body> when it changes;
//                           data-seen, the last journal entry on the page, catches what came between
//   data-live-list          on any element: "list-changed" is raised on <body> when a ticket changes
//   data-live-calls         the same with "calls-changed" and the calls of this moment
//   data-presence           on any element: gets who else has this ticket open
// After a lost connection all of them are raised once: nobody knows what was missed.
(() => {
  "use strict";
  const body = document.body;
  const byId = (id) => document.getElementById(id);
  const raise = (name) => body.dispatchEvent(new CustomEvent(name, { bubbles: true }));
  const stored = (where, name) => { try { return where.getItem(name); } catch { return null; } };
  const store = (where, name, value) => {
    try { value === null ? where.removeItem(name) : where.setItem(name, value); } catch { /* full, or off */ }
  };

  // --- keys --------------------------------------------------------------------------------------

  const OFF = "contactd.keys.off"; // WCAG 2.2, 2.1.4: can be switched off, for this browser
  const PAIR_MS = 1200;
  let first = null; // first key of a pair, and when
  const areOn = () => stored(localStorage, OFF) === null;
  const isSeen = (element) => element.checkVisibility?.() ?? element.offsetParent !== null;
  const writes = (element) => element.closest(
    "input:not([type=checkbox], [type=radio], [type=button], [type=submit]), textarea, select, [contenteditable]");

  function keyed(keys) {
    const open = document.querySelector("dialog[open]");
    return [...(open ?? document).querySelectorAll("[data-key]")]
      .find((each) => each.dataset.key === keys && !each.disabled && isSeen(each));
  }

  function use(element) {
    if (element.dataset.opens) show(byId(element.dataset.opens));
    else if (element.matches("input:not([type=submit], [type=button], [type=checkbox], [type=radio]), textarea, select")) {
      element.focus();
      element.select?.();
    } else if (element.matches("summary")) {
      element.focus();
      element.click();
    } else element.click();
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && areOn()) {
      event.target.form?.querySelector('[data-key="ctrl+enter"]')?.click();
      return;
    }
    // Not with the keys of browsers and screen readers, nor while somebody writes.
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
    if (event.key === "Escape" && event.target.matches("#seek")) event.target.blur();
    if (!areOn() || event.key.length !== 1 || event.key === " " || writes(event.target)) return;
    const pair = first && Date.now() - first.at < PAIR_MS ? `${first.key} ${event.key}` : "";
    const found = (pair && keyed(pair)) || keyed(event.key);
    first = null;
    if (found) {
      event.preventDefault();
      use(found);
    } else if (document.querySelector(`[data-key^="${CSS.escape(event.key)} "]`)) {
      first = { key: event.key, at: Date.now() };
    }
  });

  function show(dialog) {
    if (!dialog || dialog.open) return;
    if (dialog.id === "keys") listKeys(dialog);
    dialog.showModal();
  }

  function listKeys(dialog) {
    const said = new Map();
    for (const element of document.querySelectorAll("[data-key]")) {
      if (said.has(element.dataset.key) || element.disabled || !isSeen(element)) continue;
      const text = element.dataset.says || element.getAttribute("aria-label")
        || element.labels?.[0]?.textContent || element.title || element.textContent;
      said.set(element.dataset.key, text.replace(/\s+/g, " ").trim());
    }
    dialog.querySelector("dl").replaceChildren(...[...said].map(([keys, text]) => {
      const row = document.createElement("div");
      const dt = document.createElement("dt");
      for (const key of keys.split(" ")) {
        const kbd = document.createElement("kbd");
        kbd.textContent = key;
        dt.append(kbd, " ");
      }
      const dd = document.createElement("dd");
      dd.textContent = text;
      row.append(dd, dt);
      return row;
    }));
    dialog.querySelector("[name=on]").checked = areOn();
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) show(byId(opener.dataset.opens));
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  byId("keys")?.querySelector("[name=on]").addEventListener("change", (event) => {
    store(localStorage, OFF, event.target.checked ? null : "1");
  });
  for (const button of document.querySelectorAll("[data-opens][hidden]")) button.hidden = false;
  document.addEventListener("keyup", (event) => {
    if (event.key !== "Escape") return;
    const menu = document.querySelector("details.menu[open]");
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  // --- words that nobody has sent yet --------------------------------------------------------------

  const keepAs = (area) => `contactd.words ${location.pathname} ${area.dataset.keep}`;

  function putBack(root) {
    for (const area of root.querySelectorAll("textarea[data-keep]")) {
      const words = stored(sessionStorage, keepAs(area));
      if (words && !area.value) area.value = words;
      // Put back, or written before the scripts came: nothing has drawn yet what follows from it.
      if (area.value !== area.defaultValue) area.dispatchEvent(new Event("words-put-back"));
    }
  }
  document.addEventListener("input", (event) => {
    const area = event.target;
    if (!area.matches?.("textarea[data-keep]")) return;
    store(sessionStorage, keepAs(area), area.value || null);
    sayWriting();
  });
  // Words are kept until it is known that they were taken: the answer sends the browser on (303). A
  // page that is shown again has them in it, and after any other answer people go back.
  const SENT = "contactd.sent";
  const keptIn = (form) => [...form.querySelectorAll("textarea[data-keep]")].map(keepAs);
  document.addEventListener("submit", (event) => {
    const names = keptIn(event.target);
    if (names.length) store(sessionStorage, SENT, JSON.stringify(names));
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, successful, requestConfig } = event.detail;
    if (!successful || requestConfig?.triggeringEvent?.type !== "submit" || !elt.matches("form")) return;
    for (const name of keptIn(elt)) store(sessionStorage, name, null);
  });
  function dropSent() {
    const way = performance.getEntriesByType("navigation")[0];
    let names = [];
    try { names = JSON.parse(stored(sessionStorage, SENT) || "[]"); } catch { /* not ours */ }
    if (way?.type === "navigate" && way.redirectCount > 0) {
      for (const name of names) store(sessionStorage, name, null);
    }
    store(sessionStorage, SENT, null);
  }

  // --- calls ---------------------------------------------------------------------------------------

  const ringing = byId("ringing");
  const SHUT = "contactd.shut";
  const title = document.title;
  const isShut = (card) => (stored(sessionStorage, SHUT) || "").split("\n").includes(`${card.dataset.call} ${card.dataset.state}`);

  function setCalls(html) {
    const drawn = document.createElement("template");
    drawn.innerHTML = html;
    const cards = [...drawn.content.querySelectorAll("[data-call]")].filter((card) => !isShut(card));
    const shown = new Map([...ringing.children].map((card) => [card.dataset.call, card]));
    for (const card of cards) {
      const before = shown.get(card.dataset.call);
      shown.delete(card.dataset.call);
      const shut = card.querySelector("[data-shut]");
      if (shut) shut.hidden = false;
      card.drawn = card.outerHTML;
      if (before?.drawn === card.drawn) continue; // what somebody points at stays where it is
      if (!before) ringing.append(card);
      else {
        const had = before.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        before.replaceWith(card);
        if (had) card.querySelector(`a[href="${CSS.escape(had)}"]`)?.focus();
      }
    }
    for (const gone of shown.values()) gone.remove();
    const rings = ringing.querySelector(".ring.rings .caller bdi");
    document.title = rings ? `☎ ${rings.textContent} – ${title}` : title;
    tick();
  }
  ringing?.addEventListener("click", (event) => {
    if (!event.target.closest("[data-shut]")) return;
    const card = event.target.closest("[data-call]");
    const known = (stored(sessionStorage, SHUT) || "").split("\n").slice(-20);
    store(sessionStorage, SHUT, [...known, `${card.dataset.call} ${card.dataset.state}`].join("\n"));
    card.remove();
    document.title = title;
  });

  // --- clocks --------------------------------------------------------------------------------------

  let ahead = 0; // the server's clock minus ours, ms
  const two = (n) => String(n).padStart(2, "0");

  function length(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    const minutes = Math.floor(s / 60);
    return minutes < 60 ? `${minutes}:${two(s % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
  }
  function tick() {
    for (const element of document.querySelectorAll("time[data-since]")) {
      const text = length(Date.now() + ahead - Number(element.dataset.since));
      if (element.textContent !== text) element.textContent = text;
    }
  }

  // --- the stream ----------------------------------------------------------------------------------

  const SILENCE_MS = 13000; // the server says something every 5 s
  const LONGEST_MS = 30000;
  const HIDDEN_MS = 20000;
  const lost = byId("lost");
  const ticketAt = () => document.querySelector("[data-live-ticket]");
  let source = null;
  let heardAt = Date.now();
  let openedAt = 0;
  let isBack = false; // the connection was lost, or given up, since the page was drawn
  let wait = 1000;
  let again = null;
  let hidden = null;
  let hold = null; // lets another tab have the stream of those that nobody looks at
  let seen = {};

  function address() {
    const url = new URL(body.dataset.live, location.href);
    url.searchParams.set("lang", body.dataset.language);
    const ticket = ticketAt();
    if (ticket) url.searchParams.set("ticket", ticket.dataset.liveTicket);
    if (document.querySelector("[data-live-list]")) url.searchParams.set("list", "1");
    if (document.querySelector("[data-live-calls]")) url.searchParams.set("calls", "1");
    return url;
  }

  // What differs from what the page was drawn with, or from what was told before.
  function news(name, value) {
    const drawn = name === "ticket" ? ticketAt()?.dataset.seen : undefined;
    const before = name in seen ? seen[name] : drawn ?? (isBack ? null : value);
    seen[name] = value;
    if (before !== value) raise(`${name}-changed`);
  }

  function open() {
    if (source || !body.dataset.live || !ringing) return;
    seen = {};
    const mine = source = new EventSource(address());
    const on = (name, then) => mine.addEventListener(name, (event) => {
      heardAt = Date.now();
      wait = 1000;
      lost.hidden = true;
      then?.(event.data);
    });
    on("beat", (now) => { ahead = Number(now) - Date.now(); });
    on("call", setCalls);
    on("presence", (html) => {
      for (const place of document.querySelectorAll("[data-presence]")) place.innerHTML = html;
    });
    for (const name of ["ticket", "list", "calls"]) on(name, (value) => news(name, value));
    openedAt = Date.now();
    mine.onerror = () => {
      lost.hidden = Date.now() - heardAt < SILENCE_MS;
      if (mine.readyState === EventSource.CLOSED) void isLoggedOut();
      retry();
    };
  }

  function retry() {
    shut();
    isBack = true;
    again = setTimeout(open, wait * (0.7 + Math.random() * 0.6));
    wait = Math.min(wait * 2, LONGEST_MS);
  }

  function shut() {
    clearTimeout(again);
    source?.close();
    source = null;
  }

  // Refused rather than unreachable: perhaps the session is over. Words that are kept stay.
  async function isLoggedOut() {
    try {
      const page = await fetch(location.href, { redirect: "manual", headers: { Accept: "text/html" } });
      if (page.type === "opaqueredirect") location.reload();
    } catch { /* unreachable: the stream is tried again */ }
  }

  // A browser opens six connections to a server, and people open more tabs. Of those that nobody
  // looks at one keeps its stream, for the calls; the others come back when somebody does.
  function hide() {
    if (!document.hidden) return;
    if (!navigator.locks) { isBack = true; shut(); return; }
    void navigator.locks.request("contactd.hidden", { ifAvailable: true }, (lock) => {
      if (!lock) { isBack = true; shut(); return null; }
      return new Promise((resolve) => { hold = resolve; });
    });
  }
  function look() {
    clearTimeout(hidden);
    if (document.hidden) hidden = setTimeout(hide, HIDDEN_MS);
    else {
      hold?.();
      hold = null;
      if (!source) { clearTimeout(again); open(); }
    }
  }
  document.addEventListener("visibilitychange", look);
  addEventListener("online", () => { if (!source) { wait = 1000; clearTimeout(again); open(); } });
  addEventListener("pagehide", shut);
  addEventListener("pageshow", (event) => { if (event.persisted) { isBack = true; open(); } });

  setInterval(() => {
    if (document.hidden) return;
    tick();
    if (!source && !again) return;
    const silent = Date.now() - heardAt > SILENCE_MS;
    if (lost.hidden === silent) lost.hidden = !silent;
    // Half open: the network went away without a word.
    if (silent && source && Date.now() - openedAt > SILENCE_MS) retry();
  }, 1000);

  // --- who is writing ------------------------------------------------------------------------------

  const SAY_MS = 10000;
  let saidAt = 0;

  function sayWriting() {
    const ticket = ticketAt()?.dataset.liveTicket;
    if (!ticket || Date.now() - saidAt < SAY_MS) return;
    saidAt = Date.now();
    fetch(`${body.dataset.live}/writing`, { method: "POST", body: new URLSearchParams({ ticket }) }).catch(() => {});
  }

  // --- parts that are fetched ----------------------------------------------------------------------

  // A button that is exchanged between the finger's coming down and its going up is not clicked: what
  // comes live waits until nothing is pressed. It waits for the answer to what was sent, too: that
  // draws all, and a part that was asked for before would put older things in its place.
  const CLICK_MS = 100; // from a finger's going up to its click; htmx wires what it drew after 20
  const late = new Set();
  const sending = new Map(); // requests, each with its form
  let isPressed = false;
  let letGo = null;

  // A form that an answer has taken away hears of its own answer no more.
  const isSending = () => [...sending.values()].some((form) => form.isConnected);
  const liveIn = (detail) => {
    const type = detail.requestConfig?.triggeringEvent?.type;
    return type?.endsWith("-changed") ? type : null;
  };

  function drawLate() {
    if (isPressed || isSending()) return;
    const names = [...late];
    late.clear();
    for (const name of names) raise(name);
  }
  function released() {
    clearTimeout(letGo);
    letGo = setTimeout(() => { isPressed = false; drawLate(); }, CLICK_MS);
  }
  document.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return; // of another button's menu nobody tells the end
    clearTimeout(letGo);
    isPressed = true;
  }, true);
  for (const end of ["pointerup", "pointercancel", "dragend"]) document.addEventListener(end, released, true);
  addEventListener("blur", released);

  // While a form is under way nothing else in it can be pressed: the answer would drop it.
  function bar(form, isBarred) {
    form.setAttribute("aria-busy", isBarred);
    for (const button of form.querySelectorAll("button")) button.disabled = isBarred;
  }
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, xhr } = event.detail;
    const live = liveIn(event.detail);
    if (live && isSending()) {
      late.add(live);
      event.preventDefault();
    } else if (elt.matches("form")) {
      sending.set(xhr, elt);
      bar(elt, true);
      for (const part of document.querySelectorAll("[hx-trigger*='-changed']")) {
        part.dispatchEvent(new CustomEvent("htmx:abort", { bubbles: true, detail: {} }));
      }
    }
  });
  document.addEventListener("htmx:sendAbort", (event) => {
    const live = liveIn(event.detail);
    if (live) late.add(live);
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const form = sending.get(event.detail.xhr);
    if (!form) return;
    sending.delete(event.detail.xhr);
    bar(form, false);
    setTimeout(drawLate, CLICK_MS);
  });

  // A field in which somebody writes is not taken away by a part that comes new, either.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const live = liveIn(event.detail);
    if (!live) return;
    if (isPressed) late.add(live);
    const { target } = event.detail;
    const isWritten = target?.contains?.(document.activeElement) && writes(document.activeElement);
    if (isPressed || isWritten) event.detail.shouldSwap = false;
  });
  document.addEventListener("htmx:afterSettle", (event) => putBack(event.detail.elt ?? document));

  dropSent();
  document.addEventListener("DOMContentLoaded", () => putBack(document)); // after htmx, which hears of it
  open();
  look();
})();
