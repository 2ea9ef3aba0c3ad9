// Charts of bars and areas, in the colours of the page.

const PALETTE = [
  "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99",
  "#99aa55", "#997700",
];
const OTHER = "#9aa3ad";

const redraws = [];

// Draw once all parts are in the page, and again whenever it becomes dark or light.
function drawn(draw) {
  redraws.push(draw);
}

function redraw() {
  redraws.forEach((draw) => draw());
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(options) {
  const axis = {
    gridcolor: colour("--line"), zeroline: false, linecolor: colour("--line"),
    title: { font: { size: 13 }, standoff: 10 }, automargin: true,
  };
  const { xaxis, yaxis, ...others } = options;
  const merged = (own) => ({ ...axis, ...own, title: { ...axis.title, ...own?.title } });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--quiet"), size: 12, family: "system-ui, sans-serif" },
    margin: { l: 56, r: 12, t: 12, b: 44 }, bargap: 0.06,
    hoverlabel: {
      bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--text") },
    },
    modebar: {
      bgcolor: "rgba(0,0,0,0)", color: colour("--quiet"), activecolor: colour("--accent"),
    },
    xaxis: merged(xaxis), yaxis: merged(yaxis), ...others,
  };
}

const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false };

function plot() {
  return make("div", { className: "plot" });
}

function histogram(data, name, unit) {
  const element = plot();
  const { edges, counts } = data;
  const middles = Array.from(counts, (_, k) => (edges[k] + edges[k + 1]) / 2);
  const names = Array.from(counts, (count, k) => {
    const last = edges[k + 1] - 1;
    const range = last > edges[k] ? `${number(edges[k])} to ${number(last)}` : number(edges[k]);
    return `${range} ${name}: ${number(count)} ${unit}`;
  });
  drawn(() => Plotly.react(element, [{
    type: "bar", x: middles, y: counts, width: Array.from(counts, (_, k) => edges[k + 1] - edges[k]),
    hovertext: names, hoverinfo: "text", marker: { color: colour("--accent") },
  }], layout({
    xaxis: { title: { text: name }, tickformat: ",d" },
    yaxis: {
      title: { text: unit }, tickformat: ",d", rangemode: "tozero",
      dtick: Math.max(...counts) < 6 ? 1 : undefined,
    },
  }), CONFIG));
  return element;
}

function bars(pairs, unit) {
  const element = plot();
  element.style.height = `${80 + 36 * pairs.length}px`;
  const names = pairs.map(([name]) => asPlotlyText(name));
  drawn(() => Plotly.react(element, [{
    type: "bar", orientation: "h", y: names, x: pairs.map(([, count]) => count),
    text: pairs.map(([, count]) => number(count)), textposition: "auto", hoverinfo: "none",
    marker: { color: pairs.map(([name]) => (name === "none" ? "#cc3311" : colour("--accent"))) },
  }], layout({
    xaxis: { title: { text: unit }, tickformat: ",d", rangemode: "tozero" },
    yaxis: { type: "category", autorange: "reversed" }, bargap: 0.35,
  }), CONFIG));
  return element;
}

// Tokens per second of each worker on top of the others, over time in UTC.
function throughput(timeline) {
  const element = plot();
  const middles = Array.from({ length: timeline.edges.length - 1 },
    (_, k) => 500 * (timeline.edges[k] + timeline.edges[k + 1]));
  const traces = timeline.workers.map((worker, k) => ({
    type: "scatter", mode: "lines", stackgroup: "all", name: asPlotlyText(worker.name),
    x: middles, y: worker.rates, line: { width: 0.5, shape: "hvh", color: PALETTE[k] ?? OTHER },
    hovertemplate: "%{y:,.0f} tokens/s<extra>%{fullData.name}</extra>",
  }));
  drawn(() => Plotly.react(element, traces, layout({
    xaxis: { type: "date", title: { text: "time (UTC)" } },
    yaxis: { title: { text: "tokens per second" }, tickformat: "~s", rangemode: "tozero" },
    hovermode: "x unified", showlegend: traces.length > 1,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
  }), CONFIG));
  return element;
}
