// What the pages do by themselves: live parts, keys, copying, asking before what cannot be taken back.
// Every page works without it, but does not change by itself.
"use strict";

const root = document.documentElement;
const main = document.querySelector("main");
const sign = document.querySelector(".live span");
const lamp = document.querySelector(".live i");

// Light or dark, as chosen here before; else as the system has it.
const themes = ["light", "dark"];
const chosen = localStorage.getItem("hoist-theme");
if (themes.includes(chosen)) root.dataset.theme = chosen;
document.querySelector(".theme").addEventListener("click", () => {
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("hoist-theme", root.dataset.theme);
});

// MARK: Live parts

let awaySince = null;

// What came for a place that the reader is busy with.
const waiting = new Map();

function show(fragment) {
  const place = document.getElementById("f-" + fragment.id);
  if (!place) return;
  const next = document.createElement("template");
  next.innerHTML = fragment.html;
  if (sameButForTimes(place, next.content)) {
    waiting.delete(place);
    return;
  }
  if (fragment.id === "jobs" && showList(place, next.content)) return;
  if (isBusy(place)) waiting.set(place, next.content);
  else replace(place, next.content);
}

// The reader has the focus in it, or marks a text of it.
function isBusy(place) {
  const marked = document.getSelection();
  return place.contains(document.activeElement) || !marked.isCollapsed && place.contains(marked.anchorNode);
}
function showWaiting() {
  for (const [place, content] of waiting) {
    if (isBusy(place)) continue;
    waiting.delete(place);
    replace(place, content);
  }
}
document.addEventListener("focusout", () => setTimeout(showWaiting, 100));
document.addEventListener("selectionchange", () => setTimeout(showWaiting, 100));

// Times pass without anything having happened: they are set where they stand.
function sameButForTimes(place, content) {
  const blank = (node) => {
    const copy = node.cloneNode(true);
    for (const time of copy.querySelectorAll("time")) time.textContent = "";
    for (const details of copy.querySelectorAll("details")) details.removeAttribute("open");
    for (const row of copy.querySelectorAll("tr")) row.removeAttribute("class");
    const box = document.createElement("div");
    box.append(...copy.childNodes);
    return box.innerHTML;
  };
  if (blank(place) !== blank(content)) return false;
  const fresh = [...content.querySelectorAll("time")];
  [...place.querySelectorAll("time")].forEach((time, index) => {
    if (time.textContent !== fresh[index].textContent) time.textContent = fresh[index].textContent;
  });
  return true;
}

// Puts new content in place, and keeps what the reader has opened.
function replace(place, content) {
  const open = [...place.querySelectorAll("details")].map((details) => details.open);
  const before = new Map([...place.querySelectorAll("tr[data-id]")].map((row) => [row.dataset.id, stateOf(row)]));
  const chosen = place.querySelector("tr.here")?.dataset.id;
  place.replaceChildren(content);
  [...place.querySelectorAll("details")].forEach((details, index) => { details.open = open[index] ?? details.open; });
  for (const row of place.querySelectorAll("tr[data-id]")) {
    const state = before.get(row.dataset.id);
    if (state !== undefined && state !== stateOf(row)) row.classList.add("changed");
    if (row.dataset.id === chosen) row.classList.add("here");
  }
}

// What makes a row glow when it changes. Times and counts change all the time.
const stateOf = (row) => row.querySelector(".st")?.textContent;

// A list of jobs: rows that are shown change where they are; new ones wait until the reader wants them.
function showList(place, content) {
  const shown = [...place.querySelectorAll("tbody tr[data-id]")];
  if (shown.length === 0 || window.scrollY < 40 && !isBusy(place) && !isPicking()) return false;
  const next = new Map([...content.querySelectorAll("tbody tr[data-id]")].map((row) => [row.dataset.id, row]));
  for (const row of shown) {
    const fresh = next.get(row.dataset.id);
    if (fresh && fresh.innerHTML !== row.innerHTML && !row.contains(document.activeElement)) {
      const state = stateOf(row);
      row.innerHTML = fresh.innerHTML;
      row.classList.toggle("changed", state !== stateOf(row));
    }
    next.delete(row.dataset.id);
  }
  const button = place.querySelector(".new");
  if (button) {
    button.hidden = next.size === 0;
    button.textContent = next.size + " new";
    button.onclick = () => replace(place, content);
  }
  return true;
}

const isPicking = () => document.querySelector("tr.here") !== null;

// The rate of events is not read aloud; a lost connection is.
function say(text) { document.getElementById("said").textContent = text; }

function receive(message) {
  switch (message.kind) {
    case "open":
      if (awaySince) say("connected again");
      awaySince = null;
      main.classList.remove("away");
      break;
    case "fragment": show(message.fragment); break;
    case "sign":
      sign.textContent = message.text;
      lamp.className = message.text.startsWith("live") ? "on" : "off";
      break;
    case "error":
      if (!awaySince) say("disconnected");
      awaySince ??= new Date();
      main.classList.add("away");
      lamp.className = "away";
      sign.textContent = "disconnected, as of " + awaySince.toTimeString().slice(0, 8);
  }
}

// The tabs of a browser share a stream where it can; else each has its own while it is seen.
const {stream, page} = root.dataset;
let port = null;
let ownSource = null;

function connect() {
  if (port || ownSource || document.hidden) return;
  if ("SharedWorker" in window) {
    port = new SharedWorker(document.querySelector("script[data-worker]").dataset.worker).port;
    port.onmessage = ({data}) => receive(data);
    port.postMessage({kind: "show", stream, page});
    return;
  }
  ownSource = new EventSource(stream + "?of=" + encodeURIComponent(page));
  ownSource.addEventListener("open", () => receive({kind: "open"}));
  ownSource.addEventListener("fragment", (event) => receive({kind: "fragment", fragment: JSON.parse(event.data)}));
  ownSource.addEventListener("sign", (event) => receive({kind: "sign", text: JSON.parse(event.data).text}));
  ownSource.addEventListener("error", () => {
    receive({kind: "error"});
    // A server that refuses ends the stream for good; it is asked again, slowly.
    if (ownSource?.readyState === EventSource.CLOSED) {
      ownSource = null;
      setTimeout(connect, 5000);
    }
  });
}

function disconnect() {
  port?.postMessage({kind: "leave"});
  port?.close();
  ownSource?.close();
  port = ownSource = null;
}
setInterval(() => port?.postMessage({kind: "here"}), 10000);
document.addEventListener("visibilitychange", () => document.hidden ? disconnect() : connect());
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);
connect();

// MARK: Copying and asking

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => {
    const text = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = text; }, 1200);
  });
});
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// MARK: Keys

let waitsForLetter = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (waitsForLetter) {
    waitsForLetter = false;
    document.querySelector('nav a[data-key="' + CSS.escape(event.key) + '"]')?.click();
    return;
  }
  const rows = [...document.querySelectorAll("tbody tr[data-id]")];
  const here = rows.findIndex((row) => row.classList.contains("here"));
  switch (event.key) {
    case "/":
      event.preventDefault();
      document.querySelector(".search input").focus();
      break;
    case "g": waitsForLetter = true; break;
    case "?": document.getElementById("help").showModal(); break;
    case "j": case "k": {
      const next = rows[Math.min(rows.length - 1, Math.max(0, here + (event.key === "j" ? 1 : -1)))];
      rows[here]?.classList.remove("here");
      next?.classList.add("here");
      next?.scrollIntoView({block: "nearest"});
      break;
    }
    case "o": case "Enter":
      if (event.key === "o" || event.target === document.body) rows[here]?.querySelector("th a")?.click();
      break;
    case "Escape": rows[here]?.classList.remove("here"); break;
  }
});
