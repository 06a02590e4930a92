// The status page and the wallboard: takes the parts that the server draws, counts its clocks, draws
// the charts from their table, and finds its way back after everything that can happen to a screen
// that nobody touches for months.
(() => {
  "use strict";
  const SILENCE_MS = 13000; // the server draws every 5 s
  const LOOK_MS = 5000; // how often a lost server is looked for
  const RELOAD_AFTER_MS = 45000; // of silence: then the page begins anew, once the server answers
  const TURN_MS = 12000; // how long a panel of a wall stays
  const SOON_MS = 15 * 60000; // how soon a promise that is running out is marked
  const main = document.getElementById("main");
  const lost = document.getElementById("lost");
  let ahead = 0; // the server's clock minus ours, ms
  let heardAt = Date.now();
  let isLost = false;
  let zoned = null;

  const chinese = document.documentElement.lang.startsWith("zh");
  const two = (n) => String(n).padStart(2, "0");

  function length(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    const minutes = Math.floor(s / 60);
    if (minutes < 60) return `${minutes}:${two(s % 60)}`;
    const hours = Math.floor(minutes / 60);
    if (hours < 48) return `${hours}:${two(minutes % 60)}:${two(s % 60)}`;
    const days = Math.floor(hours / 24);
    return chinese ? `${days} 天 ${hours % 24} 小时` : `${days} d ${hours % 24} h`;
  }

  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    const now = Date.now() + ahead;
    for (const element of main.querySelectorAll("time[data-since]")) {
      put(element, length(now - Number(element.dataset.since)));
    }
    for (const element of main.querySelectorAll("time[data-due]")) {
      const left = Number(element.dataset.due) - now;
      put(element, left >= 0 ? length(left) : `+${length(-left)}`);
      const row = element.closest(".risk");
      if (row && left < SOON_MS) row.classList.replace("later", "soon"); // broken is the server's word
    }
    const clock = main.querySelector("time[data-now]");
    if (clock) {
      zoned ??= new Intl.DateTimeFormat("en-GB", {
        timeZone: clock.dataset.zone, hour: "2-digit", minute: "2-digit", second: "2-digit",
      });
      put(clock, zoned.format(now));
    }
    lost.hidden = !isLost && Date.now() - heardAt < SILENCE_MS;
  }

  function setClock() {
    const clock = main.querySelector("time[data-now]");
    if (!clock) return;
    ahead = Number(clock.dataset.now) - Date.now();
    // Another version runs: take its pages. Once each, or two daemons side by side would have us
    // reload for ever.
    const { version } = clock.dataset;
    if (version === document.body.dataset.version || sessionStorage.getItem("taken") === version) return;
    sessionStorage.setItem("taken", version);
    location.reload();
  }

  // The stream

  const places = new Map();
  for (const element of main.querySelectorAll("[data-part]")) {
    places.set(element.dataset.part, element);
  }
  let source = null;
  let pause = 0;

  function take(event) {
    heardAt = Date.now();
    isLost = false;
    pause = 0;
    const place = places.get(event.type);
    const opened = [...place.querySelectorAll("details")].map((each) => each.open);
    place.innerHTML = event.data;
    place.querySelectorAll("details").forEach((each, n) => { each.open = opened[n] ?? false; });
    if (event.type === "clock") setClock();
    if (event.type === "intake") drawCharts();
    if (event.type === "duty") turn(0);
    tick();
  }

  function listen() {
    source = new EventSource(main.dataset.source);
    for (const part of places.keys()) source.addEventListener(part, take);
    source.onerror = () => {
      isLost = true;
      tick();
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      source.close();
      pause = Math.min(pause + 1000, 10000);
      setTimeout(relisten, pause);
    };
  }

  async function relisten() {
    // Refused rather than unreachable: perhaps the session is over. Then the page is the login.
    try {
      const page = await fetch(location.href, { redirect: "manual", headers: { Accept: "text/html" } });
      if (page.type === "opaqueredirect") location.reload();
    } catch { /* unreachable: the stream is tried again */ }
    listen();
  }

  // A stream can hang without an error: a proxy that forgot it, a computer that slept.
  setInterval(async () => {
    if (Date.now() - heardAt < RELOAD_AFTER_MS) return;
    try {
      const answer = await fetch("/readyz", { cache: "no-store" });
      if (answer.ok) location.reload();
    } catch { /* not there yet */ }
  }, LOOK_MS);

  // Charts: one a medium, made once, given new numbers. The table has them for everybody else.

  const holder = document.getElementById("charts");
  const charts = [];
  const HOURS = Array.from({ length: 24 }, (_, hour) => hour);

  function numbers() {
    const table = document.getElementById("hours");
    const names = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
    return names.map((name, n) => {
      const cells = [...table.tBodies[0].rows].map((row) => row.cells[n + 1]);
      const today = cells.map((cell) => cell.querySelector("b")).map((b) => (b ? Number(b.textContent) : null));
      const usual = cells.map((cell) => Number(cell.querySelector("small").textContent));
      return { name, data: [HOURS, today, usual] };
    });
  }

  function makeChart({ name, data }) {
    const box = document.createElement("figure");
    const title = document.createElement("figcaption");
    title.textContent = name;
    const canvas = document.createElement("div");
    canvas.className = "canvas";
    box.append(title, canvas);
    holder.append(box);
    const style = getComputedStyle(document.documentElement);
    const colour = (key) => style.getPropertyValue(key).trim();
    const size = parseFloat(style.fontSize);
    const font = `${Math.round(size * 0.92)}px system-ui, sans-serif`;
    const plot = new uPlot({
      width: Math.max(canvas.clientWidth, 120),
      height: Math.max(canvas.clientHeight, 60),
      legend: { show: false },
      cursor: { show: false },
      padding: [size * 0.6, size * 0.6, 0, 0],
      scales: { x: { time: false, range: [-0.6, 23.6] }, y: { range: (_, __, most) => [0, Math.max(4, most * 1.1)] } },
      axes: [
        { stroke: colour("--muted"), font, grid: { show: false }, ticks: { show: false }, size: size * 1.8, gap: 2,
          splits: () => [0, 6, 12, 18, 23], values: (_, at) => at.map(two) },
        { stroke: colour("--muted"), font, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false },
          size: size * 2.4, gap: 4, space: size * 2, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
      ],
      series: [
        {},
        { fill: colour("--chart-now"), stroke: colour("--chart-now"), width: 0,
          paths: uPlot.paths.bars({ size: [0.72, 60] }), points: { show: false } },
        { stroke: colour("--chart-before"), width: Math.max(2, size / 8), dash: [6, 4],
          points: { show: false } },
      ],
    }, data, canvas);
    return { plot, canvas, title };
  }

  function drawCharts() {
    const found = numbers();
    if (!holder.parentElement.clientWidth) return; // a panel whose turn it is not
    holder.parentElement.classList.add("drawn");
    found.forEach((each, n) => {
      if (!charts[n]) charts[n] = makeChart(each);
      else {
        put(charts[n].title, each.name);
        charts[n].plot.setData(each.data);
      }
    });
    for (const gone of charts.splice(found.length)) {
      gone.plot.destroy();
      gone.canvas.parentElement.remove();
    }
  }

  function fitCharts() {
    for (const { plot, canvas } of charts) {
      const { clientWidth: width, clientHeight: height } = canvas;
      if (width && (plot.width !== width || plot.height !== height)) plot.setSize({ width, height });
    }
  }

  function dropCharts() {
    for (const { plot, canvas } of charts.splice(0)) {
      plot.destroy();
      canvas.parentElement.remove();
    }
    drawCharts();
  }

  // A wall: its panels take turns, and one that has several pages shows each of them

  const turns = document.querySelector("[data-turns]");
  let shown = 0;

  function stops() {
    return [...turns.children].flatMap((panel) => {
      const pages = [...panel.querySelectorAll(".page")];
      return pages.length > 1 ? pages.map((page) => ({ panel, page })) : [{ panel, page: null }];
    });
  }

  function turn(steps) {
    if (!turns) return;
    const all = stops();
    shown = (shown + steps) % all.length;
    const { panel, page } = all[shown];
    for (const each of turns.children) each.hidden = each !== panel;
    for (const each of panel.querySelectorAll(".page")) each.hidden = page !== null && each !== page;
    if (panel.contains(holder)) {
      drawCharts();
      fitCharts();
    }
  }

  if (turns) {
    document.documentElement.classList.add("turning");
    turn(0);
    setInterval(() => turn(1), TURN_MS);
  }

  drawCharts();
  new ResizeObserver(fitCharts).observe(holder);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dropCharts);
  setClock();
  tick();
  setInterval(tick, 1000);
  listen();
})();
