// The ticket list: j and k, or the arrows, go from row to row; Enter opens the one in focus.
(() => {
  "use strict";
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  const isBusy = (element) => element.closest("input, select, textarea, dialog, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (isBusy(event.target) || document.querySelector("dialog[open]")) return;
    const rows = [...document.querySelectorAll("[data-row]")];
    const here = rows.indexOf(document.activeElement);
    if (here < 0 && event.key.startsWith("Arrow")) return; // they scroll until a row is in focus
    const next = rows[here < 0 ? 0 : here + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.closest("tr").scrollIntoView({ block: "nearest" });
  });

  // What is fetched anew takes the place of what was in focus.
  let kept = "";
  document.addEventListener("htmx:beforeSwap", () => {
    kept = document.activeElement?.matches("[data-row]") ? document.activeElement.getAttribute("href") : "";
  });
  document.addEventListener("htmx:afterSettle", () => {
    if (kept) document.querySelector(`[data-row][href="${CSS.escape(kept)}"]`)?.focus();
    kept = "";
  });
})();
