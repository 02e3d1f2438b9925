// Why a model prefers a token: the context that it reads, the counts behind it, and a comparison of the models.

// Return what the model read, and what its most likely token depends on.
function renderReasons({ model, context, ranked, text }, tokenizer) {
  const label = (token) => tokenElement(labelOf(tokenizer, token));
  const favourite = ranked[0];
  const read = context.slice(context.length - model.contextLength);
  const sentence = element(
    "p",
    { class: "reads" },
    `Reads ${read.length === 1 ? "the last token" : `the last ${read.length} tokens`}: `,
  );
  read.forEach((token) => sentence.append(label(token), " "));
  const parts = [sentence];
  if (model.countsAfter) {
    const { tokens, counts } = model.countsAfter(read[0]);
    const index = tokens.indexOf(favourite);
    const total = counts.reduce((sum, count) => sum + count, 0);
    const count = index < 0 ? 0 : counts[index];
    const seen = [
      ` is followed by a token ${formatCount(total)} times, of which ${formatCount(count)} times by `,
      label(favourite),
      ".",
    ];
    const unseen = [" is never followed by a token, so all tokens have the same probability."];
    parts.push(
      element("p", { class: "note" }, "In the training text, ", label(read[0]), ...(total ? seen : unseen)),
    );
  }
  if (read.length > 1) parts.push(renderInfluence(model, read, favourite, tokenizer));
  return parts;
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
  const favourites = descriptions.map(({ ranked }) => ranked[0]);
  const rows = descriptions.map(({ model, token }, index) => [
    model.title,
    tokenElement(labelOf(tokenizer, favourites[index])),
    ...descriptions.map((each) =>
      formatProbability(Math.exp(logProb(each.distribution.logits, favourites[index]))),
    ),
    token < 0 ? "" : tokenElement(labelOf(tokenizer, token)),
  ]);
  const heads = descriptions.map(({ model }) => model.title);
  const last = descriptions[0].isTyped ? "typed" : "draws";
  const longest = Math.max(...descriptions.map(({ model }) => model.contextLength));
  const contexts = descriptions.map(({ text, position }) =>
    text.ids.slice(Math.max(position - longest, 0), position).join(),
  );
  const isShared = new Set(contexts).size === 1;
  const caption =
    "The most likely token of each model, and how likely all models find it (temperature 1, no limits).";
  const note = isShared
    ? ""
    : " The models read different texts here: let all models read one of them to compare.";
  return makeTable(caption + note, ["model", "most likely", ...heads, last], rows);
}
