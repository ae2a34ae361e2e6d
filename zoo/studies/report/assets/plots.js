// Bokeh plots: made through its models, so that no Python object is serialised and nothing is evaluated.
const M = Bokeh.Models;
const { Document } = Bokeh.require("document");
const PLOTS = new Map(); // host id -> { doc, plot, view }
const MARKERS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "hex"];

function axisStyle() {
  const [text, line] = [css("--soft"), css("--line")];
  return {
    axis_label_text_color: text, major_label_text_color: text, axis_line_color: line, major_tick_line_color: line,
    minor_tick_line_color: null, axis_label_text_font_style: "normal", axis_label_text_font_size: "12px",
    major_label_text_font_size: "11px", major_label_policy: new M.NoOverlap({ min_distance: 6 }),
  };
}

function tools(hover) {
  return new M.Toolbar({
    logo: null, active_drag: null, active_scroll: null, active_inspect: hover,
    tools: [new M.BoxZoomTool(), new M.PanTool(), new M.WheelZoomTool(), new M.ZoomInTool(), new M.ZoomOutTool(), new M.ResetTool(), new M.SaveTool(), hover],
  });
}

function makePlot({ x, y, xLog, yLog, xRange, yRange, xFormat, yFormat, tips, height, whole }) {
  const hover = new M.HoverTool({ tooltips: tips, renderers: [], limit: 3, visible: false });
  const range = (span) => new M.DataRange1d({ only_visible: true, range_padding: 0.06, default_span: span });
  const plot = new M.Plot({
    x_range: xRange || range(1), y_range: yRange || range(yFormat ? 0.1 : 1), // the span of a single point
    x_scale: xRange instanceof M.FactorRange ? new M.CategoricalScale() : xLog ? new M.LogScale() : new M.LinearScale(),
    y_scale: yRange instanceof M.FactorRange ? new M.CategoricalScale() : yLog ? new M.LogScale() : new M.LinearScale(),
    sizing_mode: "stretch_width", height: height || 320, background_fill_color: null, border_fill_color: null,
    outline_line_color: css("--line"), toolbar: tools(hover), toolbar_location: "above",
  });
  const kind = (r, log) => (r instanceof M.FactorRange ? M.CategoricalAxis : log ? M.LogAxis : M.LinearAxis);
  const below = new (kind(xRange, xLog))({ axis_label: x, ...axisStyle(), ...(xFormat ? { formatter: xFormat } : {}) });
  const left = new (kind(yRange, yLog))({ axis_label: y, ...axisStyle(), ...(yFormat ? { formatter: yFormat } : {}) });
  if (!xRange) below.ticker.desired_num_ticks = innerWidth < 600 ? 4 : 7;
  if (whole) below.ticker.min_interval = 1;
  plot.add_layout(below, "below");
  plot.add_layout(left, "left");
  for (const axis of [below, left]) plot.add_layout(new M.Grid({ axis, dimension: axis === left ? 1 : 0, grid_line_color: css("--line"), grid_line_alpha: 0.6 }));
  return { plot, hover, below, left };
}

const percents = () => new M.NumeralTickFormatter({ format: "0.[0]%" });

// Labels of our own making: Bokeh's need a format, and its "a" writes a million as "1m".
class Labels extends M.TickFormatter {
  constructor(label) {
    super();
    this.label = label;
  }

  doFormat(ticks) {
    return ticks.map((tick) => this.label(tick));
  }
}
const counts = () => new Labels((tick) => short(tick, (value) => Number(value.toPrecision(4))));
const times = () => new Labels(duration);

function glyph(plot, source, made, options) {
  const renderer = new M.GlyphRenderer({ data_source: source, glyph: made, ...options });
  plot.renderers = [...plot.renderers, renderer];
  return renderer;
}

async function show(id, plot, label) {
  const host = $(id);
  const place = node("div", {});
  const shown = { doc: new Document(), plot };
  shown.doc.add_root(plot);
  forget(id);
  PLOTS.set(id, shown);
  host.replaceChildren(place);
  const views = await Bokeh.embed.add_document_standalone(shown.doc, place);
  if (PLOTS.get(id) !== shown) return shown.doc.clear(); // meanwhile it was drawn anew
  shown.view = views.get(plot);
  host.tabIndex = 0;
  host.setAttribute("role", "group");
  host.setAttribute("aria-roledescription", "chart");
  host.setAttribute("aria-label", label);
  host.setAttribute("aria-describedby", "keys");
}

function forget(id) {
  const shown = PLOTS.get(id);
  PLOTS.delete(id);
  if (shown && shown.view) shown.doc.clear();
}

function hide(id, why) {
  forget(id);
  $(id).replaceChildren(node("p", { class: "note" }, why));
  $(id).removeAttribute("tabindex");
  $(id).removeAttribute("role");
  $(id).removeAttribute("aria-label");
}

// ---- the keyboard

function scaled(range, scale, factor, shift) {
  const log = scale instanceof M.LogScale;
  const [a, b] = [range.start, range.end].map((v) => (log ? Math.log(v) : v));
  const [middle, half] = [(a + b) / 2 + shift * (b - a), (factor * (b - a)) / 2];
  const [start, end] = [middle - half, middle + half].map((v) => (log ? Math.exp(v) : v));
  range.setv({ start, end });
}

function onKey(event) {
  const shown = PLOTS.get(event.currentTarget.id);
  const moves = { "+": [0.8, 0, 0], "=": [0.8, 0, 0], "-": [1.25, 0, 0], ArrowLeft: [1, -0.1, 0], ArrowRight: [1, 0.1, 0], ArrowUp: [1, 0, 0.1], ArrowDown: [1, 0, -0.1] };
  if (!shown || !shown.view || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "0") shown.view.reset();
  else if (event.key in moves) {
    const [factor, right, up] = moves[event.key];
    if (!(shown.plot.x_range instanceof M.FactorRange)) scaled(shown.plot.x_range, shown.plot.x_scale, factor, right);
    if (!(shown.plot.y_range instanceof M.FactorRange)) scaled(shown.plot.y_range, shown.plot.y_scale, factor, up);
  } else return;
  event.preventDefault();
}
