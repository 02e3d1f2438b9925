// Helpers of the view: elements, and texts of tokens and numbers.

const SVG = "http://www.w3.org/2000/svg";

// Return a new element. Attributes with the value null are left out; children are elements or strings.
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svgElement(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(attribute, value);
  }
  node.append(...children);
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

// Return a table: `head` is a list of texts, and a row is a list of texts or elements; the first heads its row.
function makeTable(caption, head, rows) {
  const cells = ([first, ...others]) => [
    element("th", { scope: "row" }, first),
    ...others.map((cell) => element("td", {}, cell)),
  ];
  return element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))),
  );
}

const MARKS = new Map([
  [" ", "␣"],
  ["\n", "⏎"],
  ["\t", "⇥"],
  ["\r", "␍"],
]);

// Return a label of a token: white space is visible, and bytes that are part of a character are hexadecimal.
function labelOf(tokenizer, token) {
  const bytes = tokenizer.tokenBytes(token);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  }
  return showInvisible(text);
}

function showInvisible(text) {
  return Array.from(text, (character) => {
    if (MARKS.has(character)) return MARKS.get(character);
    const isVisible = !/[\p{C}\p{Z}]/u.test(character);
    return isVisible ? character : `\\u{${character.codePointAt(0).toString(16)}}`;
  }).join("");
}

// Return the label as an element whose direction does not affect its surroundings.
function tokenElement(label) {
  return element("bdi", { class: "token-label" }, label);
}

function formatProbability(probability) {
  if (probability === 0 || probability === 1) return String(probability);
  if (probability >= 0.0001) return probability.toFixed(4);
  return probability.toExponential(1);
}

function formatNumber(number) {
  if (number === -Infinity) return "−∞";
  if (!Number.isFinite(number)) return String(number).replace("Infinity", "∞");
  const size = Math.abs(number);
  const digits =
    size < 1000 ? number.toFixed(2) : size < 1e9 ? formatCount(Math.round(number)) : number.toExponential(2);
  return digits.replace("-", "−");
}

function formatCount(count) {
  return count.toLocaleString("en-US");
}
