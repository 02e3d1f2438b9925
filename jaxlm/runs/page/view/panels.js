// The panel of a model: its text, its distribution at the chosen token, and what that depends on.

// Return the elements of a model's panel, in which `renderPanel` shows its state.
function makePanel(model) {
  const node = element("div", {
    class: "text",
    dir: "auto",
    tabindex: 0,
    role: "region",
    "aria-label": `Text of the ${model.title}`,
  });
  const adopt = element("button", { type: "button", class: "small" }, "Let all models read this text");
  const token = element("div");
  const bars = element("div", { class: "distribution" });
  const reasons = element("div");
  const list = element("details", {}, element("summary", {}, "All tokens as a table"));
  const figure =
    model.perplexity === null ? "" : `; perplexity on the validation text: ${formatNumber(model.perplexity)}`;
  const size = `reads ${model.contextLength === 1 ? "1 token" : `${model.contextLength} tokens`}${figure}`;
  byId("models").append(
    element(
      "article",
      {},
      element("h3", {}, model.title),
      element("p", { class: "details" }, size),
      node,
      adopt,
      token,
      bars,
      reasons,
      list,
    ),
  );
  return { node, adopt, token, bars, reasons, list };
}

function renderPanel(panel, described, text, at, tokenizer, state) {
  panel.token.replaceChildren(renderContext(described, tokenizer), describeToken(text, at, tokenizer));
  panel.bars.replaceChildren(renderBars(described, tokenizer, state));
  if (state.step === "draw") panel.bars.prepend(renderDraw(described, tokenizer));
  panel.reasons.replaceChildren(renderReasons(described, tokenizer));
  fillDetails(panel.list, () => renderTokens(text, tokenizer));
}
