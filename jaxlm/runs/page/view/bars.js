// The next-token distribution of a model as bars, in the steps from logits to draw.

const NUM_BARS = 15;
const STEPS = [
  { name: "logits", title: "Logits", help: "What the model returns: one number per token." },
  {
    name: "temperature",
    title: "Temperature",
    help: "Subtract the largest logit, then divide by the temperature.",
  },
  { name: "top-k", title: "Top-k", help: "Keep the k most likely tokens; the others are cut." },
  {
    name: "top-p",
    title: "Top-p",
    help: "Keep the fewest most likely tokens with a total probability of at least p; the others are cut.",
  },
  { name: "softmax", title: "Softmax", help: "Exponentials divided by their sum: the probabilities." },
  {
    name: "draw",
    title: "Draw",
    help: "Add up the probabilities. The token at which the sum first exceeds the uniform number u is drawn.",
  },
];

// Return what the panel shows for a text at a position: the distribution, and the token that was typed or drawn.
function describePosition(text, position, tokenizer, state) {
  const { model, numTyped } = text;
  const context = contextAt(text.ids, position, model.contextLength, tokenizer.paddingId);
  const distribution = computeDistribution(model.logits(context), state);
  const isTyped = position < numTyped;
  const uniform = isTyped ? null : uniformOf(state.seed, position - numTyped);
  const place = isTyped ? null : drawPlace(distribution, uniform);
  const token = isTyped ? text.ids[position] : place < 0 ? -1 : distribution.order[place];
  const ranked = rankTokens(distribution.centered);
  return { text, model, position, context, distribution, ranked, uniform, token, isTyped };
}

// Return the rows of the bars: the most likely tokens, and the chosen one if it is not among them.
function describeBars({ distribution, ranked, token }, state) {
  const { centered, logits } = distribution;
  const shown = Array.from(ranked.subarray(0, NUM_BARS)).filter((id) => logits[id] > -Infinity);
  const lowest = centered[shown[shown.length - 1]] ?? 0;
  if (token >= 0 && !shown.includes(token)) shown.push(token);
  return shown.map((id) => {
    const rank = ranked.indexOf(id);
    return {
      id,
      rank,
      isChosen: id === token,
      ...describeBar(distribution, id, rank, -1.25 * lowest || 1, state),
    };
  });
}

// Return the length, in [0, 1], and the value of a bar. A logit `range` below the largest has the length 0.
function describeBar({ logits, centered, divided, order, weights, total, isRanked }, id, rank, range, state) {
  const place = isRanked ? order.indexOf(id) : id;
  const weight = place < 0 ? 0 : weights[place];
  const index = STEPS.findIndex(({ name }) => name === state.step);
  const isOf = (name) => STEPS[index].name === name;
  if ((index >= 2 && place < 0) || (index >= 3 && isRanked && weight === 0))
    return { length: 0, value: "cut", isCut: true };
  if (isOf("logits"))
    return { length: clip(1 + centered[id] / range, 0, 1), value: formatNumber(logits[id]) };
  if (index < 4) return { length: clip(1 + divided[id] / range, 0, 1), value: formatNumber(divided[id]) };
  return { length: weight / total, value: formatProbability(weight / total), place };
}

// Return the bars as a table.
function renderBars(described, tokenizer, state) {
  const { distribution, model, token, isTyped } = described;
  if (!(distribution.total > 0)) return element("p", { class: "error" }, "No token has any probability here.");
  const rows = describeBars(described, state);
  const step = STEPS.find(({ name }) => name === state.step);
  const isShare = ["softmax", "draw"].includes(step.name);
  const longest = isShare ? rows[0].length : 1;
  const value = isShare ? "probability" : step.name === "logits" ? "logit" : "logit / T";
  const body = rows.map((row) => {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${(100 * row.length) / longest}%`;
    const note = row.isChosen ? (isTyped ? "typed" : "drawn") : null;
    const label = [
      tokenElement(labelOf(tokenizer, row.id)),
      ...(note ? [" ", element("small", {}, note)] : []),
    ];
    const bounds = row.place >= 0 ? boundsOf(distribution, row.place).map((bound) => bound.toFixed(4)) : [];
    const names = [row.isChosen && "chosen", row.isCut && "cut", row.rank >= NUM_BARS && "gap"].filter(
      Boolean,
    );
    return element(
      "tr",
      { class: names.join(" ") || null, title: `id ${row.id}, rank ${row.rank + 1}` },
      element("th", { scope: "row" }, ...label),
      element("td", { class: "bar-cell" }, bar),
      element("td", {}, row.value),
      ...(step.name === "draw" ? [element("td", {}, bounds.join("–"))] : []),
    );
  });
  const head = ["token", "", value, ...(step.name === "draw" ? ["u"] : [])];
  return element(
    "table",
    { class: "bars" },
    element("caption", { class: "hidden" }, `${model.title}, most likely next tokens: ${step.title}`),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...body),
  );
}
