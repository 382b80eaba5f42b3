// What both plots share: axes, ticks and the tooltip.

const MARGIN = { left: 62, right: 14, top: 12, bottom: 42 };

/** Round numbers inside [low, high], spaced by 1, 2 or 5 times a power of ten. */
function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** Powers of ten, with 2 and 5 between them if there are few; linear ticks for less than half a decade. */
function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  if (decades < 0.5) return linearTicks(low, high, count);
  const factors = decades < 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / (count + 2)));
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    if (factors.length === 1 && e % every) continue;
    factors.forEach((factor) => ticks.push(Number(`${factor}e${e}`)));
  }
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

/** Tick labels; those of linear ticks have the same number of decimals. */
function tickTexts(ticks, log) {
  const decimals = log ? 0 : Math.max(...ticks.map((tick) => (String(tick).split(".")[1] ?? "").length));
  const largest = Math.max(...ticks.map(Math.abs));
  return ticks.map((tick) => {
    const size = log ? Math.abs(tick) : largest;
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return tick.toExponential().replace("e+", "e");
    return tick.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: 8 });
  });
}

/** Map the range of the values to pixels. Both ends are padded by a share of the range; a single value is widened. */
function scale(values, from, to, { log = false, pad = 0.05 } = {}) {
  const map = log ? Math.log10 : (value) => value;
  const unmap = log ? (value) => 10 ** value : (value) => value;
  let [low, high] = extent(values).map(map);
  if (low === high) {
    const room = log ? 0.5 : Math.abs(low) * 0.1 || 1;
    [low, high] = [low - room, high + room];
  } else {
    [low, high] = [low - pad * (high - low), high + pad * (high - low)];
  }
  const position = (value) => from + ((map(value) - low) / (high - low)) * (to - from);
  position.invert = (pixel) => unmap(low + ((pixel - from) / (to - from)) * (high - low));
  position.ticks = (count) => (log ? logTicks : linearTicks)(unmap(low), unmap(high), count);
  return position;
}

function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/** Draw an svg with axes into `box`. Returns it with its scales, or null if there is nothing to draw. */
function axes(box, { xs, ys, xLog, yLog, xTitle, yTitle, xPad, height }) {
  if (!xs.length || !ys.length) {
    box.replaceChildren(el("p", { class: "note" }, "There is nothing to draw for this selection."));
    return null;
  }
  const width = box.clientWidth;
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const x = scale(xs, MARGIN.left, right, { log: xLog, pad: xPad });
  const y = scale(ys, bottom, MARGIN.top, { log: yLog });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "presentation" });
  const xTicks = x.ticks(Math.max(2, Math.round(width / 130)));
  tickTexts(xTicks, xLog).forEach((text, i) => picture.append(
    svg("line", { class: "grid", x1: x(xTicks[i]), x2: x(xTicks[i]), y1: MARGIN.top, y2: bottom }),
    svg("text", { x: x(xTicks[i]), y: bottom + 17, "text-anchor": "middle" }, text)));
  const yTicks = y.ticks(Math.round(height / 70));
  tickTexts(yTicks, yLog).forEach((text, i) => picture.append(
    svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(yTicks[i]), y2: y(yTicks[i]) }),
    svg("text", { x: MARGIN.left - 8, y: y(yTicks[i]) + 4, "text-anchor": "end" }, text)));
  const middle = (MARGIN.top + bottom) / 2;
  picture.append(svg("text", { class: "axis-title", x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "axis-title", x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, yTitle));
  const tip = el("div", { class: "tip", role: "status", hidden: true });
  box.replaceChildren(picture, tip);
  return { picture, tip, x, y, width, right, bottom };
}

/** Put the tooltip beside (x, y), on the side where it fits. */
function placeTip({ tip, width, bottom }, x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const left = x + 14 + tip.offsetWidth > width ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(0, Math.min(left, width - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, bottom - tip.offsetHeight))}px`;
}

/** Draw now, when the width changes, and when the runs change. */
function keepDrawn(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      draw();
    }
  }).observe(box);
  onChange(draw);
}
