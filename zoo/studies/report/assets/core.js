// What every part of the page uses: the data, the choice of runs, small helpers. Text of strangers only
// ever becomes text nodes and attributes.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const RUNS = DATA.runs;
const CHOSEN_AT_FIRST = 8;

const state = { chosen: new Set(), slots: new Map(), shown: [], sort: { key: "", down: false } };
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
const short = (x) => {
  if (x == null) return "-";
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) if (x >= size) return (x / size).toFixed(2) + unit;
  return String(x);
};

function table(head, rows, numeric) {
  const align = (i) => (numeric && numeric.has(i) ? "n" : null);
  const cells = (row) => row.map((c, i) => (i ? node("td", { class: align(i) }, c) : node("th", { scope: "row" }, c)));
  return node("table", {},
    node("thead", {}, node("tr", {}, ...head.map((c, i) => node("th", { scope: "col", class: align(i) }, c)))),
    node("tbody", {}, ...rows.map((row) => node("tr", {}, ...cells(row)))));
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = 7;
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

const chosenRuns = () => RUNS.map((_, i) => i).filter((i) => state.chosen.has(i));

function setTheme() {
  const theme = $("theme").value;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  tell("theme");
}
