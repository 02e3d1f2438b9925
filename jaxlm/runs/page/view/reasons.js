// Why a model prefers a token: the context that it reads, the counts behind it, and a comparison of the models.

// Return a sentence about the tokens that the model reads.
function renderContext({ model, context }, tokenizer) {
  const read = readTokens(model, context).map((token) => tokenElement(labelOf(tokenizer, token)));
  if (read.length > 1) return element("p", {}, `Reads the last ${read.length} tokens: `, ...read);
  return element("p", {}, "Reads only the last token, ", ...read, "; earlier ones do not change its prediction.");
}

function readTokens(model, context) {
  return context.slice(context.length - model.contextLength);
}

// Return what the most likely token depends on: counts, or the tokens of a longer context.
function renderReasons({ model, context, ranked }, tokenizer) {
  const read = readTokens(model, context);
  if (model.countsAfter) return renderCount(model, read[0], ranked[0], tokenizer);
  return read.length > 1 ? renderInfluence(model, read, ranked[0], tokenizer) : "";
}

// Return a sentence about how often a token follows another in the training text.
function renderCount(model, token, next, tokenizer) {
  const label = (each) => tokenElement(labelOf(tokenizer, each));
  const total = model.countsAfter(token).counts.reduce((sum, count) => sum + count, 0);
  if (!total)
    return element("p", { class: "note" }, "In the training text, no token follows ", label(token), ".");
  const count = formatCount(countOf(model, token, next));
  const times = `is followed by a token ${formatCount(total)} times, of which ${count} times by `;
  return element(
    "p",
    { class: "note" },
    "In the training text, ",
    label(token),
    ` ${times}`,
    label(next),
    ".",
  );
}

// Return a table of the probability of a token if one token of the context were the padding, usually a line end.
function renderInfluence(model, read, favourite, tokenizer) {
  const label = (token) => tokenElement(labelOf(tokenizer, token));
  const probabilityAfter = (context) =>
    formatProbability(Math.exp(logProb(model.logits(context), favourite)));
  const rows = read.map((token, place) => [
    label(token),
    probabilityAfter(read.map((each, index) => (index === place ? tokenizer.paddingId : each))),
  ]);
  const table = makeTable(
    "",
    ["replaced token", "probability"],
    [["nothing", probabilityAfter(read)], ...rows],
  );
  table.caption.append(
    "Probability of ",
    label(favourite),
    " if one token of the context were ",
    label(tokenizer.paddingId),
  );
  return table;
}

// Return a table of the most likely token of each model, with its probability under every model.
function renderFavourites(descriptions, tokenizer) {
  const label = (token) => (token < 0 ? "" : tokenElement(labelOf(tokenizer, token)));
  const rows = descriptions.map(({ model, token, ranked: [favourite] }) => [
    model.title,
    label(favourite),
    ...descriptions.map(({ distribution: { logits } }) =>
      formatProbability(Math.exp(logProb(logits, favourite))),
    ),
    label(token),
  ]);
  const titles = descriptions.map(({ model }) => model.title);
  const last = descriptions[0].isTyped ? "typed" : "draws";
  const table = makeTable("Comparison of the models", ["model", "most likely", ...titles, last], rows);
  table.caption.className = "hidden";
  return table;
}

// Return whether the tokens that the models read are the same.
function haveSameContexts(descriptions) {
  const length = Math.max(...descriptions.map(({ model }) => model.contextLength));
  const contexts = descriptions.map(({ text, position }) =>
    text.ids.slice(Math.max(position - length, 0), position).join(),
  );
  return new Set(contexts).size === 1;
}
