// Elements, numbers and the data. Text enters the page only as text nodes and attributes.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const isNumber = (value) => typeof value === "number";
const leaf = (name) => name.slice(name.lastIndexOf("/") + 1);

/** Show a number with five significant digits: 12,345 | 22.835 | 0.86785 | 4.8398e-7. */
function formatNumber(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return value.toLocaleString("en-US");
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(3);
  return value.toLocaleString("en-US", { minimumSignificantDigits: 5, maximumSignificantDigits: 5 });
}

/** Use the same number of decimals for all values of a column, so that the decimal points line up. */
function columnFormat(values) {
  const numbers = values.filter(isNumber);
  if (numbers.every(Number.isInteger)) return (value) => value.toLocaleString("en-US");
  const largest = Math.max(...numbers.map(Math.abs));
  if (largest < 1e-3) return (value) => value.toExponential(2);
  const decimals = [1000, 100, 10, 1].findIndex((bound) => largest >= bound);
  const digits = decimals < 0 ? 4 : decimals;
  return (value) => {
    if (value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits) return value.toExponential(2);
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
}

const withUnit = (column) => (column.unit ? `${column.label} (${column.unit})` : column.label);

function option(value, text = value) {
  return el("option", { value }, text);
}
