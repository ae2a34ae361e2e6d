// Classes of one run: bars, confusion, and the images that it was most wrongly sure of.
const MOST_BARS = 40;
const MOST_CELLS = 30;
const LONG_NAME = 16;
const shownRun = () => RUNS[$("k-run").value];
const namesOf = (run) => DATA.classes[run.classes];

function classRows(run) {
  const { total, hit, said } = run.seen;
  const share = (a, b) => (b ? a / b : null);
  return namesOf(run).map((name, i) => ({ name, total: total[i], recall: share(hit[i], total[i]), precision: share(hit[i], said[i]) }));
}

function drawBars(run) {
  const metric = $("k-bar").value;
  const all = classRows(run);
  const rows = all.length > MOST_BARS ? [...all].sort((a, b) => (a[metric] ?? 0) - (b[metric] ?? 0)).slice(0, MOST_BARS) : all;
  const names = rows.map(({ name }) => (name.length > LONG_NAME ? name.slice(0, LONG_NAME - 1) + "…" : name));
  const factors = names.map((name, i) => (names.indexOf(name) < i ? `${name} (${i})` : name)); // factors must differ
  const slanted = rows.length > 12 || factors.some((name) => name.length > 6);
  const made = makePlot({
    xRange: new M.FactorRange({ factors }), yRange: new M.Range1d({ start: 0, end: 1.03 }), x: rows.length < all.length ? `the ${MOST_BARS} lowest of ${all.length} classes` : "class",
    y: metric, yFormat: percents(), height: slanted ? 330 : 280, tips: [["class", "@name"], [metric, "@top{0.0%}"], ["test images", "@total"]],
  });
  if (slanted) made.below.major_label_orientation = 0.9;
  const source = new M.ColumnDataSource({ data: { x: factors, name: rows.map((row) => row.name), top: rows.map((row) => row[metric] ?? NaN), total: rows.map((row) => row.total) } });
  const bars = glyph(made.plot, source, new M.VBar({ x: { field: "x" }, top: { field: "top" }, bottom: 0, width: 0.75, fill_color: css("--c0"), line_color: null }));
  made.hover.renderers = [bars];
  const low = rows.reduce((a, b) => ((b[metric] ?? 1) < (a[metric] ?? 1) ? b : a));
  show("bars", made.plot, `${metric} of ${rows.length} classes of ${run.name}; lowest: ${low.name} with ${percent(low[metric])}`);
  const cells = all.map((row) => [row.name, row.total, percent(row.recall), percent(row.precision)]);
  $("class-data").lastElementChild.replaceChildren(table(["class", "test images", "recall", "precision"], cells, new Set([1, 2, 3])));
}

// A cell in a colour, mixed with the page's, and its text in black or white: one of them always has a contrast of 4.5.
function paint(cell, tone, share) {
  const ground = css("--bg").match(/[\da-f]{2}/g).map((part) => parseInt(part, 16));
  const mixed = tone.split(",").map((part, i) => Math.round(share * Number(part) + (1 - share) * ground[i]));
  const light = mixed.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  cell.style.background = `rgb(${mixed})`;
  cell.style.color = luminance > 0.179 ? "#000" : "#fff"; // where both contrasts are equal
}

function confusionTable(run, names) {
  const { cells, total } = run.seen;
  const counts = new Map(cells.map(([t, s, n]) => [t * names.length + s, n]));
  const cell = (t, s) => {
    const n = counts.get(t * names.length + s) || 0;
    const share = total[t] ? n / total[t] : 0;
    const made = node("td", { class: n ? null : "zero", title: `true ${names[t]}, said ${names[s]}: ${n}` }, n);
    if (n) paint(made, css(t === s ? "--heat" : "--wrong"), 0.12 + 0.88 * share);
    return made;
  };
  const head = node("tr", {}, node("td", {}), ...names.map((name) => node("th", { scope: "col", title: name }, name)));
  const rows = names.map((name, t) => node("tr", {}, node("th", { scope: "row", title: name }, name), ...names.map((_, s) => cell(t, s))));
  return node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows));
}

function confusionMap(run, names) {
  const { cells, total } = run.seen;
  const range = (flip) => new M.Range1d(flip ? { start: names.length - 0.5, end: -0.5 } : { start: -0.5, end: names.length - 0.5 });
  const made = makePlot({ x: "said (class number)", y: "true (class number)", xRange: range(false), yRange: range(true), height: 520, tips: [["true", "@true"], ["said", "@said"], ["images", "@n"]] });
  const source = new M.ColumnDataSource({ data: {
    x: cells.map((c) => c[1]), y: cells.map((c) => c[0]), n: cells.map((c) => c[2]), alpha: cells.map(([t, , n]) => 0.2 + 0.8 * (n / total[t])),
    true: cells.map((c) => names[c[0]]), said: cells.map((c) => names[c[1]]), fill: cells.map(([t, s]) => css(t === s ? "--c0" : "--c1")),
  } });
  made.hover.renderers = [glyph(made.plot, source, new M.Rect({ x: { field: "x" }, y: { field: "y" }, width: 1, height: 1, fill_color: { field: "fill" }, fill_alpha: { field: "alpha" }, line_color: null }))];
  return made.plot;
}

function drawConfusion(run) {
  const names = namesOf(run);
  forget("confusion");
  if (names.length <= MOST_CELLS) $("confusion").replaceChildren(confusionTable(run, names));
  else show("confusion", confusionMap(run, names), `Confusion of ${names.length} classes; the list below has the most frequent`);
  const wrong = run.seen.cells.filter(([t, s]) => t !== s).sort((a, b) => b[2] - a[2]).slice(0, 12);
  const rows = wrong.map(([t, s, n]) => [names[t], names[s], n, percent(n / run.seen.total[t])]);
  $("pairs").replaceChildren(rows.length ? table(["true class", "said", "images", "of the class"], rows, new Set([2, 3])) : "None: every test image was right.");
}

function drawImages(run) {
  const names = namesOf(run);
  const shown = run.images.map(([key, t, s, p]) => {
    const text = `true class ${names[t]}, taken for ${names[s]}, ${(100 * p).toFixed(1)}% sure`;
    const image = node("img", { src: DATA.images[key], alt: text });
    image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 64));
    const sure = node("span", { class: "sure" }, `${(100 * p).toFixed(1)}% sure`);
    return node("figure", {}, image, node("figcaption", {}, "is ", node("b", {}, names[t]), ", said ", node("b", {}, names[s]), node("br"), sure));
  });
  $("images").replaceChildren(...shown);
  $("mistakes-note").textContent = shown.length ? `Of ${run.name}: its surest mistakes on the test split.` : run.images_note;
}

function drawClasses() {
  const run = shownRun();
  if (!run) return; // no run is on this dataset
  $("class-parts").hidden = !run.seen;
  $("classes-note").textContent = `Protocol ${run.protocol}. ` + (run.seen ? run.note : `Not measured: ${run.reason}`);
  if (run.seen) {
    drawBars(run);
    drawConfusion(run);
  }
  drawImages(run);
}

function startClasses() {
  $("k-run").addEventListener("change", drawClasses);
  $("k-bar").addEventListener("change", drawClasses);
  redraw.theme.push(drawClasses);
}

// ---- recipes and differences of the chosen runs

function drawDifferences() {
  const runs = chosenRuns();
  const everything = $("d-all").checked || runs.length < 2;
  const values = (row) => runs.map((run) => DATA.words[row[2][run]]);
  const rows = DATA.facts.filter((row) => (everything ? values(row).some((v) => v !== "-") : new Set(values(row)).size > 1));
  const body = node("tbody", {});
  let group = "";
  for (const row of rows) {
    if (row[0] !== group) body.append(node("tr", { class: "group" }, node("th", { scope: "colgroup", colspan: runs.length + 1 }, (group = row[0]))));
    const told = values(row);
    const cells = told.map((value) => node("td", { class: value !== told[0] ? "other" : null }, value));
    body.append(node("tr", {}, node("th", { scope: "row" }, row[1]), ...cells));
  }
  const head = node("thead", {}, node("tr", {}, ...["fact", ...runs.map((run) => RUNS[run].name)].map((name) => node("th", { scope: "col" }, name))));
  $("differences").replaceChildren(runs.length ? node("table", {}, head, body) : "");
  $("compare-note").textContent = !runs.length ? "Choose runs in the table of results."
    : runs.length === 1 ? `Everything of ${RUNS[runs[0]].name}.`
    : `${rows.length} ${everything ? "facts" : "differences"} of ${runs.length} runs; bold: not as in the first.`;
}

// ---- the dataset of the page

function offerRuns() {
  const runs = runsHere();
  $("k-run").replaceChildren(...runs.map((i) => node("option", { value: i }, RUNS[i].name + (RUNS[i].seen ? "" : " (not measured)"))));
  $("k-run").value = [...chosenRuns(), ...runs].find((i) => RUNS[i].seen) ?? runs[0] ?? "";
}

function chooseFirst() {
  if (chosenRuns().length) return;
  const best = [...LINES].map((line) => DATA.rows[line.dataset.i]).filter((row) => row.dataset === state.dataset && row.run != null);
  for (const row of best.slice(0, CHOSEN_AT_FIRST)) add(row.run);
}

function setDataset() {
  state.dataset = $("dataset").value;
  for (const place of document.querySelectorAll(".note.on")) place.textContent = `Dataset ${state.dataset}.`;
  for (const part of document.querySelectorAll(".of-runs")) part.hidden = !runsHere().length;
  filterRows();
  chooseFirst();
  offerRuns();
  tell("chosen");
  tell("theme");
}

function start() {
  for (const start of [startTable, startCurves, startScatter, startClasses]) start();
  $("d-all").addEventListener("change", drawDifferences);
  redraw.chosen.push(drawDifferences);
  $("theme").addEventListener("change", setTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => tell("theme"));
  for (const id of ["loss", "top1", "scatter", "bars", "confusion"]) $(id).addEventListener("keydown", onKey);
  sortRows("top1", true);
  $("dataset").addEventListener("change", setDataset);
  setDataset();
}
Bokeh.set_log_level("warn");
start();
