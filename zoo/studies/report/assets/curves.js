// Training curves: loss and the figure of merit (top-1; of several labels an image, mean average precision).
// A run is drawn when it is first chosen, then only shown and hidden.
const CHARTS = new Map(); // metric -> { made, hits, drawn: run -> [{ split, data, renderers }] }
const MANY_POINTS = 60;

// Of several labels an image, runs have no top-1; all runs of a dataset are of one kind.
const severalLabels = (run) => Boolean(RUNS[run].curves.val_map || RUNS[run].curves.test_map);
const figureName = () => (runsHere().some(severalLabels) ? "mAP" : "top-1");

function column(run, split, metric) {
  const [curves, name] = [RUNS[run].curves, metric === "top1" && severalLabels(run) ? "map" : metric];
  return split === "train" ? curves["train_" + name] : curves["val_" + name] || curves["test_" + name];
}

const splitName = (run, split) => (split === "train" ? "training" : RUNS[run].curves.val_loss ? "validation" : "test");

// Seconds, minutes or hours: what fits the longest run that is here.
const timeHere = () => timeUnit(Math.max(...runsHere().map((run) => RUNS[run].curves.minutes.at(-1) || 0)));

function drawLine(made, run, split, metric, x) {
  const [ys, curves] = [column(run, split, metric), RUNS[run].curves];
  if (!ys) return { renderers: [], data: null };
  const gap = (values) => (values || curves.epoch.map(() => null)).map((v) => (v == null ? NaN : v));
  const data = {
    x: x === "epoch" ? curves.epoch : curves.minutes.map((minutes) => minutes / timeHere()[0]), y: gap(ys), epoch: curves.epoch,
    after: curves.minutes.map(duration), lr: (curves.lr || ys.map(() => null)).map((rate) => (rate == null ? "-" : String(Number(rate.toPrecision(3))))), loss: gap(column(run, split, "loss")),
    top1: gap(column(run, split, "top1")), run: ys.map(() => RUNS[run].name), protocol: ys.map(() => protocolOf(run)), split: ys.map(() => splitName(run, split)),
  };
  const source = new M.ColumnDataSource({ data });
  const line = glyph(made.plot, source, new M.Line({
    x: { field: "x" }, y: { field: "y" }, line_color: colour(run), line_width: split === "train" ? 1.5 : 2.2, line_dash: split === "train" ? [5, 4] : [],
  }));
  const faint = ys.length > MANY_POINTS;
  const points = glyph(made.plot, source, new M.Scatter({
    x: { field: "x" }, y: { field: "y" }, size: { value: faint ? 7 : split === "train" ? 5 : 7 }, fill_color: colour(run), line_color: null,
    fill_alpha: faint ? 0 : split === "train" ? 0.55 : 1, marker: { value: MARKERS[Math.floor(slot(run) / COLOURS) % MARKERS.length] },
  }));
  return { renderers: [line, points], data };
}

// One unseen glyph of all points that are shown: one tooltip tells all that are near, not one over the other.
function addHits(made) {
  const source = new M.ColumnDataSource({ data: { x: [], y: [] } });
  made.hover.renderers = [glyph(made.plot, source, new M.Scatter({ x: { field: "x" }, y: { field: "y" }, size: { value: 10 }, fill_alpha: 0, line_alpha: 0 }))];
  return source;
}

function drawCurves() {
  CHARTS.clear();
  if (!runsHere().length) return ["loss", "top1"].forEach((id) => hide(id, "No run is on this dataset."));
  for (const metric of ["loss", "top1"]) {
    const made = makePlot({
      x: $("c-x").value === "epoch" ? "epoch" : `training time (${timeHere()[1]})`, whole: $("c-x").value === "epoch", y: metric === "loss" ? "loss" : figureName(),
      yLog: metric === "loss" && $("c-log").checked, yFormat: metric === "loss" ? null : percents(),
      tips: [["run", "@run, @split"], ["protocol", "@protocol"], ["epoch", "@epoch, after @after, learning rate @lr"], ["", `loss @loss{0.0000}, ${figureName()} @top1{0.00%}`]],
    });
    CHARTS.set(metric, { made, hits: addHits(made), drawn: new Map() });
  }
  showLines();
  $("top1").previousElementSibling.textContent = figureName().replace("t", "T");
  for (const [metric, { made }] of CHARTS) show(metric, made.plot, curveLabel(metric));
}

function curveLabel(metric) {
  const runs = chosenRuns();
  const last = (run) => (column(run, "val", metric) || []).at(-1);
  const told = runs.slice(0, 6).map((run) => `${RUNS[run].name} ends at ${metric === "loss" ? (last(run) ?? NaN).toFixed(3) : percent(last(run))}`);
  return `${metric === "loss" ? "Loss" : figureName().replace("t", "T")} of ${runs.length} runs on ${state.dataset}. ${told.join("; ")}`;
}

function showLines() {
  const shown = new Set(chosenRuns());
  for (const [metric, { made, hits, drawn }] of CHARTS) {
    const draw = (run) => ["train", "val"].map((split) => ({ split, ...drawLine(made, run, split, metric, $("c-x").value) }));
    for (const run of chosenRuns()) if (!drawn.has(run)) drawn.set(run, draw(run));
    const near = [];
    for (const [run, lines] of drawn)
      for (const { split, data, renderers } of lines) {
        const on = shown.has(run) && $("c-" + split).checked;
        for (const renderer of renderers) renderer.visible = on;
        if (on && data) near.push(data);
      }
    const keys = ["x", "y", "epoch", "after", "lr", "loss", "top1", "run", "protocol", "split"];
    hits.data = Object.fromEntries(keys.map((key) => [key, near.flatMap((data) => data[key])]));
  }
}

function drawChips() {
  const chips = $("chips");
  if (!chips.childElementCount)
    chips.append(...RUNS.map((run, i) => {
      const chip = node("button", { type: "button", "data-run": i }, node("i", { "aria-hidden": "true" }), run.name, node("small", {}, `protocol ${run.protocol}`));
      chip.addEventListener("click", () => choose(i, !state.chosen.has(i)));
      return chip;
    }));
  for (const chip of chips.children) {
    const run = Number(chip.dataset.run);
    chip.hidden = RUNS[run].dataset !== state.dataset;
    chip.setAttribute("aria-pressed", state.chosen.has(run));
    chip.firstChild.style.setProperty("--colour", `var(${state.slots.has(run) ? "--c" + (slot(run) % COLOURS) : "--line"})`);
  }
}

function curvesTable() {
  if (!$("curves-data").open) return;
  const rows = [];
  for (const run of chosenRuns())
    RUNS[run].curves.epoch.forEach((epoch, i) => {
      const at = (split, metric) => (column(run, split, metric) || [])[i];
      const loss = (split) => at(split, "loss")?.toFixed(4) ?? "-";
      rows.push([RUNS[run].name, epoch, loss("train"), loss("val"), percent(at("train", "top1")), percent(at("val", "top1"))]);
    });
  const head = ["run", "epoch", "training loss", "validation loss", `training ${figureName()}`, `validation ${figureName()}`];
  $("curves-data").lastElementChild.replaceChildren(table(head, rows, new Set([1, 2, 3, 4, 5])));
}

function startCurves() {
  for (const id of ["c-x", "c-log"]) $(id).addEventListener("change", drawCurves);
  for (const id of ["c-train", "c-val"]) $(id).addEventListener("change", showLines);
  $("curves-data").addEventListener("toggle", curvesTable);
  redraw.theme.push(drawCurves);
  redraw.chosen.push(drawChips, showLines, curvesTable, () => {
    for (const metric of ["loss", "top1"]) $(metric).setAttribute("aria-label", curveLabel(metric));
  });
}

// ---- accuracy over cost: the rows that the table shows

const KINDS = [["run", "circle", 0], ["published", "diamond", 1], ["catalogue", "square", 2]];
const costOf = (row, cost) => (cost === "minutes" ? row.minutes : row[cost]);

function drawScatter() {
  const cost = $("s-cost").value;
  const rows = state.shown.map((i) => DATA.rows[i]).filter((row) => row.top1 != null && costOf(row, cost) > 0);
  $("cost-status").textContent = `${rows.length} of the ${state.shown.length} rows above have this cost and a top-1.`;
  if (!rows.length) return hide("scatter", "None of the rows above has both.");
  const title = $("s-cost").selectedOptions[0].textContent;
  const made = makePlot({
    x: title, y: "top-1", xLog: $("s-log").checked, xFormat: cost === "minutes" ? times() : counts(), yFormat: percents(), height: 380,
    tips: [["", "@name"], ["kind", "@kind"], ["model", "@model"], ["protocol", "@protocol"], ["top-1", "@y{0.00%}"], [title, "@cost"]],
  });
  for (const [kind, marker, tone] of KINDS) {
    const mine = rows.filter((row) => row.kind === kind);
    const text = (key) => mine.map((row) => row[key] ?? "-");
    const source = new M.ColumnDataSource({ data: {
      x: mine.map((row) => costOf(row, cost)), y: mine.map((row) => row.top1), name: text("name"), kind: text("kind"), model: text("model"), protocol: text("protocol"),
      cost: mine.map((row) => (cost === "minutes" ? duration(row.minutes) : row[cost].toLocaleString("en"))),
      filled: mine.map((row) => (row.protocol === "clean" ? 0.75 : 0)),
    } });
    const points = glyph(made.plot, source, new M.Scatter({
      x: { field: "x" }, y: { field: "y" }, size: { value: marker === "diamond" ? 15 : 11 }, marker: { value: marker }, fill_color: css("--c" + tone), fill_alpha: { field: "filled" }, line_color: css("--c" + tone), line_width: 2,
    }));
    made.hover.renderers = [...made.hover.renderers, points];
  }
  const best = rows.reduce((a, b) => (b.top1 > a.top1 ? b : a));
  show("scatter", made.plot, `Top-1 over ${title} of ${rows.length} results; the best is ${best.name} with ${percent(best.top1)}, protocol ${best.protocol || "not known"}. The table of results has the same numbers.`);
}

function startScatter() {
  for (const id of ["s-cost", "s-log"]) $(id).addEventListener("change", drawScatter);
  let waiting = 0;
  redraw.rows.push(() => {
    clearTimeout(waiting); // typing must not wait for drawing
    waiting = setTimeout(drawScatter, 120);
  });
  redraw.theme.push(drawScatter);
}
