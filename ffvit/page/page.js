"use strict";
// What the page can do beyond being read: it loads itself anew while the run goes on (and can be
// told not to), says how old it is, and shows the values under a cursor, by pointer or arrow keys.

const page = document.body.dataset;
const kept = {
  get: (key) => { try { return sessionStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* not allowed */ } },
};

// --- the state that a reload must not lose ---
const details = [...document.querySelectorAll("details")];
const folds = (kept.get("folds") || "").split(",");
details.forEach((item, index) => {
  if (folds[index]) item.open = folds[index] === "open";
  item.addEventListener("toggle", () =>
    kept.set("folds", details.map((other) => (other.open ? "open" : "closed")).join()));
});

// --- loading anew ---
let busy = false; // somebody reads values off a plot
const box = document.querySelector("#refresh input");
if (box) {
  box.parentElement.hidden = false;
  box.checked = kept.get("refresh") !== "off";
  box.addEventListener("change", () => kept.set("refresh", box.checked ? "on" : "off"));
  setInterval(() => {
    if (box.checked && !busy && !document.hidden) location.reload();
  }, 1000 * page.refreshSeconds);
}

// --- how old it is ---
const age = document.querySelector("#age");
function showAge() {
  const seconds = Math.max(0, Date.now() / 1000 - page.writtenAt);
  const text = seconds < 90 ? `${seconds.toFixed(0)} s` : seconds < 5400
    ? `${(seconds / 60).toFixed(0)} min` : seconds < 2e5 ? `${(seconds / 3600).toFixed(0)} h`
    : `${(seconds / 86400).toFixed(0)} days`;
  age.textContent = `, ${text} ago`;
  const silent = document.querySelector("#silent");
  if (silent) silent.hidden = seconds < page.silentSeconds;
}
if (age) { showAge(); setInterval(showAge, 1000); }

// --- values under a cursor ---
function nearest(points, x) {
  return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
}
function format(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}
for (const figure of document.querySelectorAll("[data-plot]")) {
  const { width, unit, curves } = JSON.parse(figure.dataset.plot);
  const frame = figure.querySelector(".frame");
  const readout = figure.querySelector(".readout");
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  const stops = [...new Set(curves.flatMap((curve) => curve.points.map((point) => point[0])))]
    .sort((a, b) => a - b);
  let at = stops.length;
  const show = (index) => {
    at = Math.min(Math.max(index, 0), stops.length - 1);
    const x = stops[at];
    cursor.style.left = `${(100 * x) / width}%`;
    frame.append(cursor);
    readout.textContent = `epoch ${format(x)}: ` + curves
      .map((curve) => `${curve.label} ${format(nearest(curve.points, x)[1])}${unit ? ` ${unit}` : ""}`)
      .join(", ");
    busy = true;
  };
  const hide = () => {
    cursor.remove();
    readout.textContent = "";
    at = stops.length;
    busy = false;
  };
  frame.addEventListener("pointermove", (event) => {
    const { left, width: size } = frame.getBoundingClientRect();
    const x = (width * (event.clientX - left)) / size;
    show(stops.indexOf(nearest(stops.map((stop) => [stop]), x)[0]));
  });
  frame.addEventListener("pointerleave", hide);
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: stops.length - 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(step);
  });
}
