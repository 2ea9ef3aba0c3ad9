// The page: unpack, then part after part.

function workersSection(timeline) {
  const title = "Throughput by worker";
  if (timeline === null) {
    return section(title, "Not recorded: the shards were computed by an earlier version, which did not write down when and by which worker.");
  }
  const missing = timeline.shards - timeline.recorded;
  const caption = "Tokens of a batch are spread evenly over the time from its claim to its shard, by the worker's clock."
    + (missing ? ` Of ${number(timeline.shards)} shards, ${number(missing)} of earlier versions do not record it.` : "");
  return section(title, caption, throughput(timeline), table([
    ["worker", (w) => w.name], ["shards", (w) => w.batches], ["tokens", (w) => w.tokens],
    ["seconds of forward passes", (w) => Math.round(10 * w.device_seconds) / 10],
    ["tokens per second of these", (w) => (w.device_seconds ? Math.round(w.tokens / w.device_seconds) : 0)],
  ], timeline.workers));
}

function ladderSection(run) {
  const retried = run.rows_retried ? `${counted(run.rows_retried, "row was", "rows were")} not finite at the first rung, and computed again.` : "No row had to be computed again.";
  return section("Rungs", `The steps of the precision ladder that were used. ${retried}`, table([
    ["rung", (r) => r.rung], ["shards", (r) => r.shards], ["rows", (r) => r.rows],
    ["tokens", (r) => r.tokens],
  ], run.ladder));
}

function unstableSection(run) {
  const title = "Instabilities";
  if (run.unstable === 0) return section(title, "Every sequence that was computed has an embedding.");
  const more = run.unstable - run.unstable_shown.length;
  const caption = `${counted(run.unstable, "sequence has", "sequences have")} no embedding at any rung.`
    + (more ? ` The first ${number(run.unstable_shown.length)} are listed.` : "");
  return section(title, caption, table([
    ["row", (u) => u.row], ["id", (u) => u.id], ["length", (u) => u.length], ["why", (u) => u.why],
  ], run.unstable_shown));
}

function retriesSection(run) {
  const title = "Retries and events";
  if (run.no_ledger) {
    return section(title, `Not known: ${run.no_ledger}. Redis keeps the events of a job, the store does not.`);
  }
  const lost = `${counted(run.leases_lost, "batch was", "batches were")} requeued, as a worker was lost.`;
  if (run.incidents.length === 0) return section(title, `${lost} There were no other events.`);
  return section(title, `${lost} The latest events, newest first.`, table([
    ["time", (e) => e.time], ["event", (e) => e.event], ["batch", (e) => e.batch],
    ["rung", (e) => e.rung], ["worker", (e) => e.worker], ["detail", (e) => e.detail],
  ], run.incidents));
}

function two(...children) {
  return make("div", { className: "two" }, ...children);
}

function show(report) {
  const main = document.querySelector("main");
  const put = (id, ...children) => document.getElementById(id).append(...children);
  document.getElementById("title").textContent = `Report of ${report.subject}`;
  put("facts", ...report.facts.map(([name, text]) =>
    make("span", { text: `${name} ` }, make("b", { text }))));
  put("notes", ...report.warnings.map((text) => make("p", { className: "note", text })),
    ...report.notes.map((text) => make("p", { className: "quiet", text })));
  put("cards", ...report.cards.map(([value, text]) =>
    make("div", { className: "card" }, make("b", { text: value }), make("span", { text }))));
  put("footer", `Made by virnucpro-fleet ${report.version}; drawn by plotly.js ${Plotly.version} (MIT licence). This page loads nothing from anywhere.`);

  let map = null;
  if (report.points !== null) {
    map = mapSection(report.points, report.map_notes, report.subject);
    main.append(map.element);
  } else if (report.map_notes.length) {
    main.append(section("Map of the embeddings", report.map_notes.join(" ")));
  }
  const run = report.run;
  const lengths = report.lengths && section("Lengths", `Embedded ${report.letters} of each sequence.`,
    histogram(report.lengths, report.letters, "sequences"));
  const precisions = report.precisions.length > 0 && section("Precision",
    "In which precision each sequence was computed; none: it has no embedding.",
    bars(report.precisions, "sequences"));
  if (run === null) {
    main.append(two(...[lengths, precisions].filter(Boolean)));
    main.append(section("How it was computed", "Batches, workers and retries are known to the job's store: producer report JOB."));
  } else {
    const tokens = section("Tokens per batch", "A batch is what a worker takes at once.",
      histogram(run.batch_tokens, "tokens", "batches"));
    main.append(two(...[lengths, tokens].filter(Boolean)), workersSection(run.timeline),
      two(...[precisions, ladderSection(run)].filter(Boolean)), unstableSection(run), retriesSection(run));
  }
  redraw();
  if (map !== null) map.start();
}

async function start() {
  const report = JSON.parse(await unpacked("data"), revived);
  document.head.append(make("script", { text: await unpacked("library") }));
  show(report);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  const problem = document.getElementById("problem");
  problem.textContent = `This page cannot be shown: ${error}. It needs a browser of 2023 or later.`;
  problem.hidden = false;
  console.error(error);
});
