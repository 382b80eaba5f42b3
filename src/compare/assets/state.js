// Which runs are shown: those that match the filter and are not hidden.

const COLOURS = 7;
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const SHAPES = ["circle", "square", "triangle", "diamond", "down"];
const listeners = [];
const state = { hidden: new Set(), matches: () => true };

data.runs.forEach((run, index) => {
  run.index = index;
  run.colour = `var(--run-${index % COLOURS})`;
  run.dash = DASHES[Math.floor(index / COLOURS) % DASHES.length];
  run.shape = SHAPES[index % SHAPES.length];
});

const columns = Object.fromEntries(data.columns.map((column) => [column.key, column]));
const matching = () => data.runs.filter((run) => state.matches(run));
const isShown = (run) => state.matches(run) && !state.hidden.has(run.index);
const shown = () => data.runs.filter(isShown);
const onChange = (listener) => listeners.push(listener);
const changed = () => listeners.forEach((listener) => listener());

function toggle(run) {
  if (!state.hidden.delete(run.index)) state.hidden.add(run.index);
  changed();
}

function columnNamed(word) {
  const wanted = word.toLowerCase();
  const names = (column) => [column.key, column.label, leaf(column.key)].map((name) => name.toLowerCase());
  return data.columns.find((column) => column.key === wanted) ?? data.columns.find((column) => names(column).includes(wanted));
}

function comparison(word, operator, wanted) {
  const column = columnNamed(word);
  if (!column) throw new Error(`there is no column '${word}'`);
  if (wanted === "") return () => true;
  const number = Number(wanted);
  if (operator !== "=" && Number.isNaN(number)) throw new Error(`expected a number after ${word}${operator}`);
  const tests = {
    "=": (value) => String(value).toLowerCase() === wanted.toLowerCase() || (isNumber(value) && value === number),
    ">": (value) => isNumber(value) && value > number,
    "<": (value) => isNumber(value) && value < number,
    ">=": (value) => isNumber(value) && value >= number,
    "<=": (value) => isNumber(value) && value <= number,
  };
  return (run) => tests[operator](run.values[column.key]);
}

function containing(word) {
  const wanted = word.toLowerCase();
  const texts = (run) => [run.name, ...["model", "experiment", "scale", "backprop"].map((key) => run.values[key]), run.commit ?? ""];
  return (run) => texts(run).some((text) => String(text).toLowerCase().includes(wanted));
}

/** Turn a filter like `iunet seed=0 psnr>20` into a predicate of a run: all words must match. Throws for an unknown column. */
function parseFilter(text) {
  const tests = text.split(/\s+/).filter(Boolean).map((word) => {
    const parts = word.match(/^([^<>=]+)(>=|<=|=|>|<)(.*)$/);
    return parts ? comparison(parts[1], parts[2], parts[3]) : containing(word);
  });
  return (run) => tests.every((test) => test(run));
}

/** The run's colour, line and point shape, as in the plots. */
function mark(run) {
  return svg("svg", { class: "mark", viewBox: "0 0 22 12", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 22, y1: 6, y2: 6, stroke: run.colour, "stroke-width": 2.5, "stroke-dasharray": run.dash || null }),
    pointShape(run, 11, 6, 4));
}

function pointShape(run, x, y, r, attributes = {}) {
  const at = (points) => points.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join(" ");
  const corners = {
    square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
    triangle: [[0, -1.15], [1.1, 0.85], [-1.1, 0.85]],
    diamond: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
    down: [[0, 1.15], [1.1, -0.85], [-1.1, -0.85]],
  }[run.shape];
  const look = { fill: run.colour, ...attributes };
  return corners ? svg("polygon", { points: at(corners), ...look }) : svg("circle", { cx: x, cy: y, r, ...look });
}
