// What every part of the page uses: the data, the choice of runs, small helpers. Text of strangers only
// ever becomes text nodes and attributes.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const RUNS = DATA.runs;
const CHOSEN_AT_FIRST = 8;

const state = { dataset: "", chosen: new Set(), slots: new Map(), shown: [], sort: { key: "", down: false } };
const redraw = { chosen: [], rows: [], theme: [] };
const tell = (what) => redraw[what].forEach((draw) => draw());

function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

const percent = (x) => (x == null ? "-" : (100 * x).toFixed(2) + "%");
const short = (x, written = (value) => value.toFixed(2)) => {
  if (x == null) return "-";
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) if (x >= size) return written(x / size) + unit;
  return String(x);
};

// A time in the unit that fits it, with as many digits as mean something.
const duration = (minutes) => {
  if (minutes == null || Number.isNaN(minutes)) return "-";
  const [size, unit] = timeUnit(minutes);
  const value = minutes / size;
  return (value >= 100 ? value.toFixed(0) : Number(value.toPrecision(value < 10 ? 2 : 3))) + " " + unit;
};
const timeUnit = (minutes) => (minutes >= 120 ? [60, "h"] : minutes >= 2 ? [1, "min"] : [1 / 60, "s"]); // minutes of one, its name

function table(head, rows, numeric) {
  const align = (i) => (numeric && numeric.has(i) ? "n" : null);
  const cells = (row) => row.map((c, i) => (i ? node("td", { class: align(i) }, c) : node("th", { scope: "row" }, c)));
  return node("table", {},
    node("thead", {}, node("tr", {}, ...head.map((c, i) => node("th", { scope: "col", class: align(i) }, c)))),
    node("tbody", {}, ...rows.map((row) => node("tr", {}, ...cells(row)))));
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = 6;
// A run has its colour from when it was first chosen, so that the first few all differ.
const slot = (run) => state.slots.get(run);
const colour = (run) => css("--c" + (slot(run) % COLOURS));

function add(run) {
  if (!state.slots.has(run)) state.slots.set(run, state.slots.size);
  state.chosen.add(run);
}

function choose(run, on) {
  if (on) add(run);
  else state.chosen.delete(run);
  tell("chosen");
}

// The page shows one dataset at a time: runs on another stay chosen, and are shown when it is.
const runsHere = () => RUNS.map((_, i) => i).filter((i) => RUNS[i].dataset === state.dataset);
const chosenRuns = () => runsHere().filter((i) => state.chosen.has(i));
const protocolOf = (run) => RUNS[run].protocol;

function setTheme() {
  const theme = $("theme").value;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  tell("theme");
}
