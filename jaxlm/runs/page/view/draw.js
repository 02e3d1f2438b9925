// The draw: the uniform number as a mark on the cumulative bar.

// Return the cumulative bar with the uniform number as a mark, and below it the surroundings of the mark.
function renderDraw(described, tokenizer) {
  const { distribution, uniform, token, isTyped } = described;
  if (isTyped) return element("p", { class: "note" }, "This token was typed, not drawn.");
  if (token < 0) return element("p");
  const place = distribution.order.indexOf(token);
  const [begin, end] = boundsOf(distribution, place);
  const label = labelOf(tokenizer, token);
  const sentence = element(
    "p",
    { class: "note" },
    `u = ${uniform.toFixed(6)} is between ${begin.toFixed(6)} and ${end.toFixed(6)}: `,
    tokenElement(label),
  );
  const order = distribution.isRanked ? "from most to least likely" : "by id";
  const whole = cumulativeBar(
    distribution,
    tokenizer,
    uniform,
    token,
    [0, 1],
    `All tokens, ${order}; grey: too narrow to show`,
  );
  if (end - begin > 0.1) return element("div", {}, sentence, whole);
  const margin = 1.5 * Math.max(end - begin, 1e-7);
  const range = [Math.max(begin - margin, 0), Math.min(end + margin, 1)];
  const factor = Math.round(1 / (range[1] - range[0]));
  const enlarged = cumulativeBar(
    distribution,
    tokenizer,
    uniform,
    token,
    range,
    `Around u, enlarged ${formatCount(factor)} times`,
  );
  return element("div", {}, sentence, whole, enlarged);
}

// Return a picture of the part of the cumulative bar in a range of [0, 1]. Neighbours that are too narrow to
// see share one rectangle.
function cumulativeBar({ weights, order, total }, tokenizer, uniform, chosen, [low, high], title) {
  const width = 360;
  const toX = (share) => clip((width * (share - low)) / (high - low), 0, width);
  const description = `${title}. The mark is at ${uniform.toFixed(4)}.`;
  const picture = svgElement("svg", { viewBox: `0 0 ${width} 46`, role: "img", "aria-label": description });
  const addRectangle = (name, left, right) =>
    picture.append(svgElement("rect", { class: name, x: left, y: 12, width: right - left, height: 20 }));
  let end = 0;
  let narrowFrom = 0;
  for (let place = 0; place < order.length; place++) {
    const left = toX(end);
    end += weights[place] / total;
    const right = toX(end);
    const isChosen = order[place] === chosen;
    if (!isChosen && right - left < 2) continue;
    if (left > narrowFrom) addRectangle("narrow", narrowFrom, left);
    addRectangle(isChosen ? "chosen" : place % 2 ? "odd" : "even", left, Math.max(right, left + 0.5));
    const label = labelOf(tokenizer, order[place]);
    if (right - left > 8 * (label.length + 1)) {
      const name = isChosen ? "chosen" : null;
      picture.append(svgElement("text", { class: name, x: (left + right) / 2, y: 26 }, label));
    }
    narrowFrom = right;
  }
  if (narrowFrom < toX(end)) addRectangle("narrow", narrowFrom, toX(end));
  const mark = toX(uniform);
  picture.append(svgElement("path", { class: "mark", d: `M${mark} 10v24M${mark - 5} 2h10l-5 8z` }));
  picture.append(svgElement("text", { class: "first", x: 0, y: 44 }, formatProbability(low)));
  picture.append(svgElement("text", { class: "last", x: width, y: 44 }, formatProbability(high)));
  return element("figure", {}, element("figcaption", {}, title), picture);
}

// Return the interval of uniform numbers that draw the token at a place.
function boundsOf({ weights, blockSize, blockCumsums, total }, place) {
  const block = Math.floor(place / blockSize);
  let begin = block ? blockCumsums[block - 1] : 0;
  for (let index = block * blockSize; index < place; index++) begin += weights[index];
  return [begin / total, Math.min((begin + weights[place]) / total, 1)];
}
