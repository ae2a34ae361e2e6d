// The table of results: written by the server side, sorted and filtered here.
const BODY = document.querySelector("#table tbody");
const LINES = [...BODY.rows];
const FILTERS = ["kind", "protocol"];

function fillFilters() {
  for (const key of FILTERS) {
    const values = [...new Set(DATA.rows.map((row) => row[key]).filter(Boolean))].sort();
    $("f-" + key).append(...values.map((value) => node("option", { value }, value)));
  }
}

function passes(row, text, least) {
  const words = [row.name, row.model, row.recipe, row.source].join(" ").toLowerCase();
  return row.dataset === state.dataset && text.every((word) => words.includes(word)) && (least === null || (row.top1 != null && 100 * row.top1 >= least))
    && FILTERS.every((key) => !$("f-" + key).value || row[key] === $("f-" + key).value);
}

function filterRows() {
  const text = $("f-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const least = $("f-top1").value === "" ? null : Number($("f-top1").value);
  state.shown = [];
  LINES.forEach((line) => {
    const i = Number(line.dataset.i);
    line.hidden = !passes(DATA.rows[i], text, least);
    if (!line.hidden) state.shown.push(i);
  });
  tell("rows");
}

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
}

function sortRows(key, down) {
  state.sort = { key, down };
  const value = (line) => DATA.rows[line.dataset.i][key];
  LINES.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    const way = down && x != null && y != null ? -1 : 1; // what is unknown comes last, whichever way
    return way * compare(x, y) || a.dataset.i - b.dataset.i;
  });
  BODY.append(...LINES);
  for (const button of document.querySelectorAll("#table thead button")) {
    const mine = button.dataset.key === key;
    button.closest("th").setAttribute("aria-sort", mine ? (down ? "descending" : "ascending") : "none");
  }
  sayStatus();
}

function sayStatus() {
  const { key, down } = state.sort;
  const title = key && document.querySelector(`#table thead button[data-key="${key}"]`).textContent;
  const all = DATA.rows.filter((row) => row.dataset === state.dataset).length;
  $("status").textContent = `${state.shown.length} of ${all} rows on ${state.dataset}`
    + (title ? `, sorted by ${title}, ${down ? "descending" : "ascending"}` : "");
}

function markChosen() {
  for (const box of BODY.querySelectorAll("input")) box.checked = state.chosen.has(Number(box.dataset.run));
}

function startTable() {
  fillFilters();
  $("filters").addEventListener("input", filterRows);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(filterRows));
  BODY.addEventListener("change", (event) => choose(Number(event.target.dataset.run), event.target.checked));
  for (const button of document.querySelectorAll("#table thead button")) {
    button.addEventListener("click", () => {
      const { key, down } = state.sort;
      const numeric = button.dataset.numeric === "true"; // numbers are first wanted from the largest down
      sortRows(button.dataset.key, key === button.dataset.key ? !down : numeric);
    });
  }
  redraw.rows.push(sayStatus);
  redraw.chosen.push(markChosen);
}
