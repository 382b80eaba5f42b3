// One number against another, with the Pareto front.

const numericColumns = () => data.columns.filter((column) => data.runs.some((run) => isNumber(run.values[column.key])) && column.role !== "seed");

/** The Pareto front, ordered by x: a point leaves it if another is at least as good in both numbers and better in one. */
function paretoFront(points, xBetter, yBetter) {
  const worth = (p) => [xBetter === "max" ? p.x : -p.x, yBetter === "max" ? p.y : -p.y];
  const beats = (a, b) => {
    const [ax, ay] = worth(a);
    const [bx, by] = worth(b);
    return ax >= bx && ay >= by && (ax > bx || ay > by);
  };
  return points.filter((p) => !points.some((other) => beats(other, p))).sort((a, b) => a.x - b.x);
}

/** The boundary of the region that the front beats, drawn as a staircase. */
function frontPath(front, { x, y }, xBetter) {
  return front.map((p, i) => {
    if (!i) return `M${x(p.x)} ${y(p.y)}`;
    const before = front[i - 1];
    return xBetter === "min" ? `H${x(p.x)}V${y(p.y)}` : `M${x(before.x)} ${y(before.y)}V${y(p.y)}H${x(p.x)}`;
  }).join("");
}

function pointTip(plot, point, xColumn, yColumn) {
  const row = (column, value) => el("tr", {}, el("th", { scope: "row" }, withUnit(column)), el("td", { class: "number" }, formatNumber(value)));
  placeTip(plot, plot.x(point.x), plot.y(point.y), el("span", { class: "run" }, mark(point.run), el("strong", {}, point.run.name)),
    el("table", {}, row(xColumn, point.x), row(yColumn, point.y)));
}

/** Draw a label only where it covers no earlier one; every point also names its run in a tooltip. */
function drawLabels(plot, points) {
  const taken = points.map((p) => ({ left: plot.x(p.x) - 7, right: plot.x(p.x) + 7, top: plot.y(p.y) - 7, bottom: plot.y(p.y) + 7 }));
  const free = (box) => taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
  for (const point of points) {
    const label = svg("text", { class: "label" }, point.run.name);
    plot.picture.append(label);
    const width = label.getComputedTextLength();
    const [x, y] = [plot.x(point.x), plot.y(point.y)];
    const places = [[x + 10, y + 4], [x - 10 - width, y + 4], [x - width / 2, y - 12], [x - width / 2, y + 20]];
    const place = places.find(([left, base]) => left > MARGIN.left && left + width < plot.width && free({ left, right: left + width, top: base - 11, bottom: base + 3 }));
    if (place) {
      fill(label, { x: place[0], y: place[1] }, []);
      taken.push({ left: place[0], right: place[0] + width, top: place[1] - 11, bottom: place[1] + 3 });
    } else {
      label.remove();
    }
  }
}

function drawTradeoff() {
  const [xColumn, yColumn] = [columns[byId("x-axis").value], columns[byId("y-axis").value]];
  const [xBetter, yBetter] = [byId("x-better").value, byId("y-better").value];
  const points = shown().map((run) => ({ run, x: run.values[xColumn.key], y: run.values[yColumn.key] })).filter((p) => isNumber(p.x) && isNumber(p.y));
  const canLog = points.every((p) => p.x > 0);
  const plot = axes(byId("cost-plot"), {
    xs: points.map((p) => p.x), ys: points.map((p) => p.y), xLog: byId("x-log").checked && canLog, xPad: 0.08, height: 400,
    xTitle: withUnit(xColumn), yTitle: withUnit(yColumn),
  });
  const front = paretoFront(points, xBetter, yBetter);
  byId("cost-note").textContent = tradeoffNote(points, front, xColumn, yColumn, canLog);
  if (!plot) return;
  plot.picture.append(svg("path", { class: "front", d: frontPath(front, plot, xBetter) }));
  for (const point of points) {
    const show = () => pointTip(plot, point, xColumn, yColumn);
    const hide = () => { plot.tip.hidden = true; };
    plot.picture.append(pointShape(point.run, plot.x(point.x), plot.y(point.y), 6.5, {
      class: front.includes(point) ? "point" : "point dominated", tabindex: 0, role: "img", "data-run": point.run.name,
      "aria-label": `${point.run.name}: ${withUnit(xColumn)} ${formatNumber(point.x)}, ${withUnit(yColumn)} ${formatNumber(point.y)}`,
      onpointerenter: show, onpointerleave: hide, onfocus: show, onblur: hide,
    }));
  }
  drawLabels(plot, [...front, ...points.filter((p) => !front.includes(p))]);
}

function tradeoffNote(points, front, xColumn, yColumn, canLog) {
  const parts = [];
  if (front.length) parts.push(`Pareto front (dashed), the runs that no other beats in both: ${front.map((p) => p.run.name).join(", ")}.`);
  const left = shown().length - points.length;
  if (left) parts.push(`${left} of the runs shown ${left === 1 ? "lacks" : "lack"} one of the two numbers.`);
  const kinds = new Set(points.map((p) => p.run.memoryKind));
  const usesMemory = [xColumn.key, yColumn.key].some((key) => key === "memory" || key === "memory/peak_gib");
  const names = { cuda_allocated: "the peak that torch allocated on the GPU", process_resident: "the peak resident memory of the process on the CPU" };
  if (usesMemory && kinds.size === 1) parts.push(`Memory is ${names[[...kinds][0]] ?? "of unknown origin"}.`);
  if (usesMemory && kinds.size > 1) parts.push("Memory was measured in two ways (GPU allocator, CPU process); do not compare one with the other.");
  if (byId("x-log").checked && !canLog) parts.push("The axis stays linear: not all numbers are positive.");
  return parts.join(" ");
}

function axisChoices(id, start) {
  const groups = { quality: "Quality", cost: "Cost", metric: "Other metrics" };
  for (const [role, label] of Object.entries(groups)) {
    const members = numericColumns().filter((column) => column.role === role);
    if (members.length) byId(id).append(el("optgroup", { label }, ...members.map((column) => option(column.key, withUnit(column)))));
  }
  byId(id).value = start.key;
}

function startTradeoff() {
  const numeric = numericColumns();
  const cost = numeric.find((column) => column.key === "memory") ?? numeric.find((column) => column.role === "cost");
  const quality = numeric.find((column) => column.role === "quality");
  if (!cost || !quality) {
    byId("cost").hidden = true;
    return;
  }
  const setDirection = (axis) => { byId(`${axis}-better`).value = columns[byId(`${axis}-axis`).value].better ?? "max"; };
  for (const [axis, column] of [["x", cost], ["y", quality]]) {
    axisChoices(`${axis}-axis`, column);
    setDirection(axis);
    byId(`${axis}-axis`).addEventListener("change", () => { setDirection(axis); drawTradeoff(); });
    byId(`${axis}-better`).addEventListener("change", drawTradeoff);
  }
  byId("x-log").addEventListener("change", drawTradeoff);
  keepDrawn(byId("cost-plot"), drawTradeoff);
}
