// The table of runs.

const sorting = { key: null, descending: false };

function visibleColumns() {
  const all = byId("all-metrics").checked;
  return data.columns.filter((column) => all || column.role !== "metric");
}

function compareValues(a, b) {
  return isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

/** The runs that match the filter, sorted. Runs without a value come last in both directions. */
function sortedRuns() {
  const runs = matching();
  if (sorting.key === null) return runs;
  const value = (run) => (sorting.key === "run" ? run.name : sorting.key === "commit" ? run.commit : run.values[sorting.key]);
  const known = runs.filter((run) => value(run) !== null && value(run) !== undefined);
  known.sort((a, b) => (sorting.descending ? -1 : 1) * compareValues(value(a), value(b)));
  return [...known, ...runs.filter((run) => !known.includes(run))];
}

function sortBy(key) {
  const sameAgain = sorting.key === key;
  // The first click puts the best run on top.
  sorting.descending = sameAgain ? !sorting.descending : columns[key]?.better === "max";
  sorting.key = key;
  drawRuns();
}

function header(key, label, unit, isNumeric) {
  const direction = sorting.key === key ? (sorting.descending ? "descending" : "ascending") : "none";
  const button = el("button", { type: "button", "data-sort": key, onclick: () => sortBy(key) }, label);
  return el("th", { scope: "col", "aria-sort": direction, class: isNumeric ? "number" : null }, button,
    unit ? el("span", { class: "unit" }, unit) : null);
}

/** The best value of a column among the runs shown; null if neither direction is better or the values are equal. */
function bestOf(column) {
  const values = shown().map((run) => run.values[column.key]).filter(isNumber);
  if (!column.better || values.length < 2) return null;
  const [low, high] = extent(values);
  if (low === high) return null;
  return column.better === "max" ? high : low;
}

function cell(run, column, format, best) {
  const value = run.values[column.key];
  const isText = column.role === "text";
  if (value === null || value === undefined) return el("td", { class: isText ? "missing" : "number missing" }, "–");
  if (isText || column.role === "seed") return el("td", { class: isText ? null : "number" }, String(value));
  const isBest = best !== null && value === best && isShown(run);
  return el("td", { class: isBest ? "number best" : "number", title: isBest ? `${value} (best)` : String(value) }, format(value));
}

function runCell(run) {
  const box = el("input", { type: "checkbox", "aria-label": `show ${run.name}`, onchange: () => toggle(run) });
  box.checked = !state.hidden.has(run.index);
  const tag = run.finished ? null : el("span", { class: "tag", title: "summary.json is missing or older than the last steps" }, "unfinished");
  return el("th", { scope: "row" }, el("label", { class: "run", title: run.path }, box, mark(run), el("span", { class: "name" }, run.name), tag));
}

function commitCell(run) {
  if (!run.commit) return el("td", { class: "missing" }, "–");
  const [hash, dirty] = run.commit.split("-");
  const title = dirty ? `${run.commit}: with uncommitted changes` : run.commit;
  return el("td", { title }, hash.slice(0, 8) + (dirty ? "*" : ""));
}

function drawRuns() {
  const used = visibleColumns();
  const focused = document.activeElement?.dataset?.sort;
  const focusedRun = document.activeElement?.getAttribute("aria-label");
  const formats = used.map((column) => columnFormat(data.runs.map((run) => run.values[column.key])));
  const best = used.map(bestOf);
  const head = el("tr", {}, header("run", "run"),
    ...used.map((column) => header(column.key, column.label, column.unit, column.role !== "text")), header("commit", "commit"));
  const rows = sortedRuns().map((run) => el("tr", { class: state.hidden.has(run.index) ? "off" : null }, runCell(run),
    ...used.map((column, i) => cell(run, column, formats[i], best[i])), commitCell(run)));
  byId("runs-table").replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
  // The element that had the focus was replaced, so focus its successor.
  const again = [...byId("runs-table").querySelectorAll("button, input")];
  again.find((node) => (focused ? node.dataset.sort === focused : focusedRun && node.getAttribute("aria-label") === focusedRun))?.focus();
}

function readFilter() {
  const field = byId("filter");
  try {
    state.matches = parseFilter(field.value);
    field.removeAttribute("aria-invalid");
    changed();
    byId("filter-state").textContent = `${matching().length} of ${data.runs.length}`;
  } catch (error) {
    field.setAttribute("aria-invalid", "true");
    byId("filter-state").textContent = error.message;
  }
}

function startRuns() {
  const metric = data.columns.find((column) => column.role === "quality");
  const example = metric && data.runs.map((run) => run.values[metric.key]).find(isNumber);
  byId("filter-example").textContent = `${metric ? `${leaf(metric.key)}>${formatNumber(example)}, ` : ""}memory<2, seed=0.`;
  byId("filter").addEventListener("input", readFilter);
  byId("all-metrics").addEventListener("change", drawRuns);
  onChange(drawRuns);
  readFilter();
}
