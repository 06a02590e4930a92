// The status page's clocks, and what it says when the stream is lost. Everything else comes drawn.
(() => {
  "use strict";
  const SILENCE_MS = 13000; // the server draws every 5 s
  const lost = document.getElementById("lost");
  let ahead = 0; // the server's clock minus ours, ms
  let heardAt = Date.now();
  let zoned = null;

  const two = (n) => String(n).padStart(2, "0");

  function length(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    const minutes = Math.floor(s / 60);
    if (minutes < 60) return `${minutes}:${two(s % 60)}`;
    return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
  }

  function tick() {
    const now = Date.now() + ahead;
    for (const element of document.querySelectorAll("time[data-since]")) {
      const text = length(now - Number(element.dataset.since));
      if (element.textContent !== text) element.textContent = text;
    }
    const clock = document.querySelector("time[data-now]");
    if (clock) {
      zoned ??= new Intl.DateTimeFormat("en-GB", {
        timeZone: clock.dataset.zone, hour: "2-digit", minute: "2-digit", second: "2-digit",
      });
      clock.textContent = zoned.format(now);
    }
    lost.hidden = Date.now() - heardAt < SILENCE_MS;
  }

  function setClock() {
    const clock = document.querySelector("time[data-now]");
    if (!clock) return;
    ahead = Number(clock.dataset.now) - Date.now();
    if (clock.dataset.version !== document.body.dataset.version) location.reload();
  }

  document.addEventListener("htmx:sseMessage", (event) => {
    heardAt = Date.now();
    if (event.target.classList.contains("clock")) setClock();
    tick();
  });

  document.addEventListener("htmx:sseError", async (event) => {
    heardAt = -Infinity; // until the next message
    tick();
    const source = event.detail.source;
    if (!source || source.readyState !== EventSource.CLOSED) return;
    // Refused rather than unreachable: perhaps the session is over. Then the page is the login.
    try {
      const page = await fetch("/", { redirect: "manual", headers: { Accept: "text/html" } });
      if (page.type === "opaqueredirect") location.reload();
    } catch { /* unreachable: the stream is tried again */ }
  });

  setClock();
  tick();
  setInterval(tick, 1000);
})();
