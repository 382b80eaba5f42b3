// Plots of every metric over the steps.

const HEIGHT = 380;
const MAX_ROWS = 12;
const range = { from: null, to: null };
let curvePlot = null;
let cursor = null;

const metricNames = () => [...new Set(data.runs.flatMap((run) => Object.keys(run.curves)))].sort();
const inRange = (step) => (range.from === null || step >= range.from) && (range.to === null || step <= range.to);

/** Exponential moving average with bias correction, as in TensorBoard; gaps stay gaps. */
function smooth(values, weight) {
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}

/** The curves of the chosen metric with the points to draw: those in range, and on a log scale only positive ones. */
function chosenCurves() {
  const log = byId("curve-scale").value === "log";
  const weight = Number(byId("smoothing").value);
  const drawable = (value) => value !== null && (!log || value > 0);
  return shown().flatMap((run) => {
    const curve = run.curves[byId("metric").value];
    if (!curve) return [];
    const smoothed = smooth(curve.value, weight);
    const kept = curve.step.map((step, i) => i).filter((i) => inRange(curve.step[i]));
    const points = kept.filter((i) => drawable(curve.value[i])).map((i) => ({
      step: curve.step[i], raw: curve.value[i], value: smoothed[i], low: curve.low?.[i], high: curve.high?.[i],
    }));
    const left = kept.filter((i) => !drawable(curve.value[i])).length;
    return [{ run, curve, points, left, log, weight }];
  });
}

function path(points, x, y) {
  return points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
}

function drawCurve({ run, curve, points, log, weight }, { picture, x, y }) {
  const look = { stroke: run.colour, "stroke-dasharray": run.dash || null };
  if (curve.group > 1 && weight === 0) {
    const floor = (p) => (log && p.low <= 0 ? p.value : p.low);
    const outline = [...points.map((p) => [p.step, p.high]), ...points.map((p) => [p.step, floor(p)]).reverse()];
    picture.append(svg("path", { class: "band", fill: run.colour, d: `${path(outline, x, y)}Z` }));
  }
  if (weight > 0) picture.append(svg("path", { class: "line raw", ...look, d: path(points.map((p) => [p.step, p.raw]), x, y) }));
  picture.append(svg("path", { class: "line", "data-run": run.name, ...look, d: path(points.map((p) => [p.step, p.value]), x, y) }));
  if (points.length <= 40) points.forEach((p) => picture.append(pointShape(run, x(p.step), y(p.value), 3)));
}

function drawCurves() {
  drawLegend();
  const metric = byId("metric").value;
  const curves = chosenCurves();
  const steps = curves.flatMap((c) => c.points.map((p) => p.step));
  const values = curves.flatMap((c) => c.points.flatMap((p) => (c.curve.group > 1 && c.weight === 0
    ? [p.value, p.high, ...(c.log && p.low <= 0 ? [] : [p.low])] : [p.value, ...(c.weight > 0 ? [p.raw] : [])])));
  const unit = columns[metric]?.unit;
  const box = byId("curve-plot");
  curvePlot = axes(box, {
    xs: extentOf(steps), ys: extentOf(values), yLog: curves[0]?.log, xPad: 0.01, height: HEIGHT, xTitle: "step",
    yTitle: unit ? `${metric} (${unit})` : metric,
  });
  cursor = null;
  if (curvePlot) {
    curvePlot.curves = curves.filter((c) => c.points.length);
    curves.forEach((c) => drawCurve(c, curvePlot));
    curvePlot.overlay = svg("g");
    curvePlot.picture.append(curvePlot.overlay);
  }
  byId("curves-note").textContent = curveNote(curves);
}

const extentOf = (values) => (values.length ? extent(values) : []);

function curveNote(curves) {
  const groups = [...new Set(curves.map((c) => c.curve.group))].filter((group) => group > 1).sort((a, b) => a - b);
  const left = curves.reduce((sum, c) => sum + c.left, 0);
  const parts = ["Drag to zoom in, double-click to show all steps. The arrow keys move along the steps."];
  if (groups.length) parts.push(`Each point is the mean of up to ${groups.join(" or ")} logged values; the band shows their smallest and largest value.`);
  if (left) parts.push(`${left} ${left === 1 ? "point is" : "points are"} not drawn: not finite${curves[0].log ? ", or not positive on a logarithmic scale" : ""}.`);
  return parts.join(" ");
}

function drawLegend() {
  const focused = document.activeElement?.dataset?.legend;
  const runs = matching().filter((run) => run.curves[byId("metric").value]);
  byId("legend").replaceChildren(...runs.map((run) => el("button", {
    type: "button", "aria-pressed": String(!state.hidden.has(run.index)), "data-legend": run.index, onclick: () => toggle(run),
  }, mark(run), run.name)));
  if (focused !== undefined) byId("legend").querySelector(`[data-legend="${focused}"]`)?.focus();
}

/** The point of a curve closest to a step. */
function nearest(points, step) {
  return points.reduce((best, p) => (Math.abs(p.step - step) < Math.abs(best.step - step) ? p : best));
}

/** Show every run's value at a step and highlight the run closest to the pointer's height `pixelY`. */
function showStep(step, pixelY = null) {
  if (!curvePlot) return;
  const { curves, overlay, x, y, bottom } = curvePlot;
  const found = curves.map((c) => ({ ...c, point: nearest(c.points, step) }));
  const closest = Math.min(...found.map((f) => Math.abs(f.point.step - step)));
  const at = found.find((f) => Math.abs(f.point.step - step) === closest).point.step;
  const distance = (f) => Math.abs(y(f.point.value) - (pixelY ?? 0));
  const near = pixelY === null ? null : found.reduce((best, f) => (distance(f) < distance(best) ? f : best));
  cursor = at;
  overlay.replaceChildren(svg("line", { class: "cursor", x1: x(at), x2: x(at), y1: MARGIN.top, y2: bottom }),
    ...found.map((f) => pointShape(f.run, x(f.point.step), y(f.point.value), 4.5, { class: "point" })));
  found.sort((a, b) => b.point.value - a.point.value);
  const rows = found.slice(0, MAX_ROWS).map((f) => el("tr", { class: f === near ? "near" : null }, el("td", {}, mark(f.run)),
    el("th", { scope: "row" }, f.run.name), el("td", { class: "number" }, valueText(f)),
    el("td", { class: "missing" }, f.point.step === at ? "" : `step ${formatNumber(f.point.step)}`)));
  const more = found.length > MAX_ROWS ? [el("div", { class: "missing" }, `and ${found.length - MAX_ROWS} more`)] : [];
  placeTip(curvePlot, x(at), pixelY ?? HEIGHT / 2, el("strong", {}, `step ${formatNumber(at)}`), el("table", {}, ...rows), ...more);
}

function valueText({ point, weight, curve }) {
  if (weight > 0) return `${formatNumber(point.value)} (${formatNumber(point.raw)})`;
  return curve.group > 1 ? `${formatNumber(point.value)} (${formatNumber(point.low)} … ${formatNumber(point.high)})` : formatNumber(point.value);
}

function hideCursor() {
  cursor = null;
  if (!curvePlot) return;
  curvePlot.tip.hidden = true;
  curvePlot.overlay.replaceChildren();
}

function setRange(from, to) {
  [range.from, range.to] = [from, to];
  byId("step-from").value = from ?? "";
  byId("step-to").value = to ?? "";
  drawCurves();
}

function moveCursor(event) {
  const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === "Escape") hideCursor();
  if (!direction || !curvePlot) return;
  event.preventDefault();
  const steps = [...new Set(curvePlot.curves.flatMap((c) => c.points.map((p) => p.step)))].sort((a, b) => a - b);
  const start = direction > 0 ? 0 : steps.length - 1;
  const next = cursor === null ? start : steps.indexOf(cursor) + direction;
  showStep(steps[Math.max(0, Math.min(steps.length - 1, next))]);
}

/** Dragging with a mouse marks the steps to zoom to; a finger moves the cursor. */
function listenToPointer(box) {
  let start = null;
  const position = (event) => {
    const frame = box.getBoundingClientRect();
    return [Math.max(MARGIN.left, Math.min(event.clientX - frame.left, frame.width - MARGIN.right)), event.clientY - frame.top];
  };
  box.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) [start] = position(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (!curvePlot) return;
    const [x, y] = position(event);
    showStep(curvePlot.x.invert(x), y);
    if (start !== null && Math.abs(x - start) > 4) {
      curvePlot.overlay.append(svg("rect", { class: "brush", x: Math.min(x, start), width: Math.abs(x - start), y: MARGIN.top, height: curvePlot.bottom - MARGIN.top }));
    }
  });
  box.addEventListener("pointerup", (event) => {
    const [x] = position(event);
    if (start !== null && curvePlot && Math.abs(x - start) > 8) {
      const ends = [start, x].map((pixel) => curvePlot.x.invert(pixel)).sort((a, b) => a - b);
      setRange(Math.max(0, Math.floor(ends[0])), Math.ceil(ends[1]));
    }
    start = null;
  });
  box.addEventListener("pointerleave", () => {
    start = null;
    hideCursor();
  });
  box.addEventListener("dblclick", () => setRange(null, null));
}

function startCurves() {
  const names = metricNames();
  if (!names.length) {
    byId("curves").hidden = true;
    return;
  }
  byId("metric").append(...names.map((name) => option(name)));
  const first = data.columns.find((column) => column.role === "quality" && names.includes(column.key));
  byId("metric").value = first?.key ?? names.find((name) => name.startsWith("val/")) ?? names[0];
  byId("metric").addEventListener("change", drawCurves);
  byId("curve-scale").addEventListener("change", drawCurves);
  byId("smoothing").addEventListener("input", () => {
    byId("smoothing-value").textContent = Number(byId("smoothing").value).toString();
    drawCurves();
  });
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  ["step-from", "step-to"].forEach((id) => byId(id).addEventListener("change", () => setRange(number("step-from"), number("step-to"))));
  byId("whole-range").addEventListener("click", () => setRange(null, null));
  byId("curve-plot").addEventListener("keydown", moveCursor);
  listenToPointer(byId("curve-plot"));
  keepDrawn(byId("curve-plot"), drawCurves);
}
