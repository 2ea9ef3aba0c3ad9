// The map of embeddings: one point per sequence, drawn by WebGL where the browser has it.

const MOST_WITHOUT_WEBGL = 5000;
const CATEGORIES_SHOWN = 10;
const IDS_SHOWN = 8;

function hasWebGL() {
  return Boolean(document.createElement("canvas").getContext("webgl"));
}

// Every k-th point, so that at most so many are left.
function thinned(points, most) {
  const step = Math.ceil(points.ids.length / most);
  const some = (values) => values.filter((_, k) => k % step === 0);
  return {
    ...points, ids: some(points.ids), headers: some(points.headers), lengths: some(points.lengths),
    projections: points.projections.map((p) => ({
      ...p, coordinates: p.coordinates.filter((_, k) => (k >> 1) % step === 0),
    })),
    colours: points.colours.map((c) => ({ ...c, values: some(c.values) })),
  };
}

// A value between which and the highest, or the lowest, few are: outliers do not set the scale.
function spread(values) {
  const sorted = values.filter(Number.isFinite).sort();
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return at(0.01) < at(0.99) ? [at(0.01), at(0.99)] : [sorted[0], sorted[sorted.length - 1]];
}

function colourOf(names, k) {
  return names[k] === "(none)" ? OTHER : PALETTE[k] ?? OTHER;
}

// What plotly needs to colour the points by a column.
function markerOf(column) {
  if (column.names === null) {
    const [cmin, cmax] = spread(column.values);
    const title = { text: asPlotlyText(column.name), side: "right" };
    const colorbar = { title, thickness: 12, outlinewidth: 0, tickformat: "~s", len: 0.6 };
    return { color: column.values, colorscale: "Viridis", cmin, cmax, showscale: true, colorbar };
  }
  const count = Math.min(column.names.length, CATEGORIES_SHOWN + 1);
  const colours = Array.from({ length: count }, (_, k) => colourOf(column.names, k));
  const steps = colours.flatMap((c, k) => [[k / count, c], [(k + 1) / count, c]]);
  return {
    color: column.values.map((k) => Math.min(k, CATEGORIES_SHOWN)), colorscale: steps,
    cmin: -0.5, cmax: count - 0.5, showscale: false,
  };
}

function valueOf(column, k) {
  const value = column.values[k];
  if (column.names !== null) return column.names[value];
  return Number.isFinite(value) ? number(value) : "not known";
}

function mapSection(points, notes, subject) {
  const webgl = hasWebGL();
  const total = points.ids.length;
  if (!webgl && total > MOST_WITHOUT_WEBGL) {
    points = thinned(points, MOST_WITHOUT_WEBGL);
    notes = [...notes, `This browser has no WebGL: ${number(points.ids.length)} of ${number(total)} points are drawn.`];
  }
  const size = points.ids.length > 20000 ? 3 : points.ids.length > 2000 ? 5 : 8;
  const element = plot();
  const legend = make("div", { className: "legend" });
  const count = make("p", {});
  const chosenList = make("ul", { className: "chosen" });
  const save = make("button", { text: "Save ids", disabled: true, id: "save" });
  const clear = make("button", { text: "Clear", disabled: true });
  const options = (items) => items.map((item, k) => make("option", { value: k, text: item.name }));
  const colourBy = make("select", { id: "colour" }, ...options(points.colours));
  const projection = make("select", { id: "projection" }, ...options(points.projections));
  const search = make("input", { id: "search", type: "search", placeholder: "part of an id" });
  colourBy.value = points.shown;
  let chosen = null;

  function draw() {
    const { coordinates, titles } = points.projections[projection.value];
    const axis = (title) => ({ title: { text: title }, showticklabels: false });
    const trace = {
      type: webgl ? "scattergl" : "scatter", mode: "markers", hoverinfo: "none",
      x: coordinates.filter((_, k) => k % 2 === 0), y: coordinates.filter((_, k) => k % 2 === 1),
      marker: { size, opacity: 0.75, ...markerOf(points.colours[colourBy.value]) },
      selectedpoints: chosen, unselected: { marker: { opacity: 0.08 } },
      selected: { marker: { opacity: 1, size: chosen && chosen.length < 30 ? 12 : size } },
    };
    Plotly.react(element, [trace], layout({
      xaxis: axis(titles[0]), yaxis: axis(titles[1]), dragmode: element.layout?.dragmode ?? "pan",
      uirevision: projection.value, hoverdistance: 8, margin: { l: 36, r: 12, t: 36, b: 40 },
    }), {
      ...CONFIG, scrollZoom: true, displayModeBar: true,
      modeBarButtons: [["pan2d", "select2d", "lasso2d", "zoom2d", "resetScale2d", "toImage"]],
    });
  }

  function drawLegend() {
    const column = points.colours[colourBy.value];
    legend.replaceChildren();
    if (column.names === null) return;
    const counts = new Array(column.names.length).fill(0);
    column.values.forEach((k) => counts[k]++);
    const entry = (name, amount, k, belongs) => {
      const dot = make("i");
      dot.style.background = colourOf(column.names, k);
      const button = make("button", { title: name }, dot, make("span", { text: name }),
        make("small", { text: number(amount) }));
      button.onclick = () => choose(indices((at) => belongs(column.values[at])));
      return button;
    };
    const shown = column.names.slice(0, CATEGORIES_SHOWN);
    legend.append(make("h3", { text: column.name }),
      ...shown.map((name, k) => entry(name, counts[k], k, (v) => v === k)));
    const rest = column.names.length - shown.length;
    if (rest > 0) {
      const amount = counts.slice(shown.length).reduce((sum, c) => sum + c, 0);
      legend.append(entry(`${number(rest)} others`, amount, shown.length, (v) => v >= shown.length));
    }
  }

  function indices(belongs) {
    return points.ids.map((_, k) => k).filter(belongs);
  }

  function showChosen() {
    const none = chosen === null;
    count.textContent = none
      ? "None. Choose Box Select or Lasso Select above the map and drag, click a category, or search."
      : `${number(chosen.length)} of ${counted(points.ids.length, "sequence", "sequences")}`;
    const shown = none ? [] : chosen.slice(0, IDS_SHOWN);
    chosenList.replaceChildren(...shown.map((k) =>
      make("li", { text: points.ids[k], title: points.headers[k] })));
    if (!none && chosen.length > IDS_SHOWN) chosenList.append(make("li", { text: "…" }));
    save.disabled = none || chosen.length === 0;
    clear.disabled = none;
  }

  // Select points by other means than by drawing in the map.
  function choose(found) {
    Plotly.relayout(element, { selections: [] });
    chosen = found;
    draw();
    showChosen();
  }

  function showTip({ points: [point], event }) {
    const k = point.pointIndex;
    const column = points.colours[colourBy.value];
    const tip = document.getElementById("tip");
    const rest = points.headers[k].startsWith(points.ids[k])
      ? points.headers[k].slice(points.ids[k].length).trim() : points.headers[k];
    const lines = [rest, `length ${number(points.lengths[k])}`];
    if (column.name !== "length") lines.push(`${column.name}: ${valueOf(column, k)}`);
    tip.replaceChildren(make("b", { text: points.ids[k] }),
      ...lines.filter(Boolean).map((text) => make("div", { text })));
    tip.hidden = false;
    const left = Math.min(event.clientX + 16, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
  }

  search.onchange = () => {
    const wanted = search.value.trim().toLowerCase();
    choose(wanted ? indices((k) => points.ids[k].toLowerCase().includes(wanted)) : null);
  };
  colourBy.onchange = () => { draw(); drawLegend(); };
  projection.onchange = draw;
  clear.onclick = () => { search.value = ""; choose(null); };
  save.onclick = () => download(`${subject}-ids.txt`, chosen.map((k) => `${points.ids[k]}\n`).join(""));

  const label = (text, control) => make("label", { text }, control);
  const switches = points.projections.length > 1 ? [label("Map", projection)] : [];
  const side = make("div", { className: "side" }, legend, make("h3", { text: "Selection" }), count,
    chosenList, make("div", { className: "actions" }, save, clear));
  drawn(draw);
  return {
    element: section("Map of the embeddings", notes.join(" "),
      make("div", { className: "controls" }, ...switches, label("Colour", colourBy),
        label("Search", search)),
      make("div", { className: "map" }, element, side)),
    start() {
      drawLegend();
      showChosen();
      element.on("plotly_hover", showTip);
      element.on("plotly_unhover", () => { document.getElementById("tip").hidden = true; });
      element.on("plotly_selected", (event) => {
        if (!event?.range && !event?.lassoPoints) return; // that a drawn selection was removed
        chosen = event.points.map((point) => point.pointIndex);
        showChosen();
      });
      element.on("plotly_deselect", () => { chosen = null; showChosen(); });
    },
  };
}
