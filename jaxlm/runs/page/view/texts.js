// The text of a model: its tokens, coloured by surprise.

const NUM_SHADES = 9; // of surprise, one per 1.5 bits

// Append the tokens that are not shown yet, after removing those that can have changed. The last one that is
// shown can change, because the next token can complete its character.
function renderText(node, text, tokenizer, at) {
  const first = Math.max(text.numShown - 1, 0);
  while (node.childNodes.length > first) node.lastChild.remove();
  const parts = decodeEach(tokenizer, text.ids);
  for (let position = first; position < text.nats.length; position++) {
    const nats = text.nats[position];
    const bits = nats / Math.LN2;
    const shade = Math.min(Math.floor(bits / 1.5), NUM_SHADES - 1);
    const kind = position < text.numTyped ? "typed" : "drawn";
    const token = element(
      "span",
      { class: `token ${kind} s${shade}`, "data-position": position },
      parts[position],
    );
    token.title = `${formatProbability(Math.exp(-nats))}, ${bits.toFixed(1)} bits`;
    node.append(token);
  }
  // One element for typed tokens whose loss is not known yet: an element per token in each frame would be slow.
  const rest = parts.slice(text.nats.length).join("");
  if (rest) node.append(element("span", {}, rest));
  text.numShown = text.nats.length;
  node.querySelector(".selected")?.classList.remove("selected");
  node.childNodes[at]?.classList.add("selected");
}

// Return the sentence about the token at a position: its surprise, and the perplexity of the typed text up to it.
function describeToken(text, position, tokenizer) {
  const sentence = element("p", { class: "note" });
  const nats = text.nats[position];
  const last = Math.min(position + 1, text.numTyped, text.nats.length);
  if (nats !== undefined) {
    const label = tokenElement(labelOf(tokenizer, text.ids[position]));
    const bits = nats / Math.LN2;
    sentence.append(
      label,
      `: probability ${formatProbability(Math.exp(-nats))}, surprise ${formatNumber(bits)} bits. `,
    );
  }
  if (last > 0) {
    const mean = text.nats.slice(0, last).reduce((sum, each) => sum + each, 0) / last;
    const extent =
      last === text.numTyped
        ? "of the typed text"
        : `of its first ${last === 1 ? "token" : `${last} tokens`}`;
    sentence.append(`Perplexity ${extent}: ${formatNumber(Math.exp(mean))}.`);
  }
  return sentence;
}

// Return a table of all tokens with their surprise.
function renderTokens(text, tokenizer) {
  const rows = text.nats.map((nats, position) => [
    tokenElement(labelOf(tokenizer, text.ids[position])),
    position < text.numTyped ? "typed" : "drawn",
    formatProbability(Math.exp(-nats)),
    formatNumber(nats / Math.LN2),
  ]);
  return makeTable(`Tokens of the ${text.model.title}`, ["token", "", "probability", "bits"], rows);
}
