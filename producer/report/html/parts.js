// Parts of the page. What users named is only ever set as text.

const NUMBERS = new Intl.NumberFormat("en");

function number(value) {
  return typeof value === "number" ? NUMBERS.format(value) : value;
}

function counted(count, one, several) {
  return `${number(count)} ${count === 1 ? one : several}`;
}

function make(tag, options = {}, ...children) {
  const { text, ...others } = options;
  const element = Object.assign(document.createElement(tag), others);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

function section(title, caption, ...children) {
  const head = [make("h2", { text: title }), make("p", { className: "quiet", text: caption })];
  return make("section", {}, ...head, ...children);
}

// Columns are pairs of a title and a function of a row; numbers are set to the right.
function table(columns, rows) {
  const cell = (tag, value) =>
    make(tag, { text: number(value), className: typeof value === "number" ? "number" : "" });
  const isNumber = (value) => rows.length > 0 && typeof value(rows[0]) === "number";
  const head = columns.map(([title, value]) =>
    make("th", { text: title, className: isNumber(value) ? "number" : "" }));
  const body = rows.map((row) =>
    make("tr", {}, ...columns.map(([, value]) => cell("td", value(row)))));
  const whole = make("table", {},
    make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  return make("div", { className: "scroll", tabIndex: 0 }, whole);
}

function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Plotly reads some tags in the texts that it draws.
function asPlotlyText(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}
