// The controls: the form of the settings, the buttons, and the slider of the chosen token.

const OPTION_INPUTS = ["seed", "temperature", "topK", "topP"];

// Call the actions when the user changes a control.
function connectControls({ update, step, run, back, restart, move }) {
  byId("prompt").addEventListener("input", ({ target }) => update({ prompt: target.value, at: null }));
  for (const name of OPTION_INPUTS) {
    byId(name).addEventListener("input", ({ target }) => {
      const value = readNumber(name, target.value), isEmptyAllowed = DEFAULTS[name] === null;
      const isValid = value !== null || (isEmptyAllowed && target.value === "" && !target.validity.badInput);
      target.setAttribute("aria-invalid", String(!isValid));
      byId("error").textContent = isValid ? "" : describeRange(name, target.labels[0].textContent.trim());
      if (isValid) update({ [name]: value });
    });
  }
  byId("step").addEventListener("click", step);
  byId("run").addEventListener("click", () => run(100));
  byId("back").addEventListener("click", back);
  byId("restart").addEventListener("click", restart);
  byId("at").addEventListener("input", ({ target }) => move(Number(target.value)));
  STEPS.forEach(({ name, title }, index) => {
    const input = element("input", { type: "radio", name: "step", value: name, id: `step-${name}` });
    input.addEventListener("change", () => update({ step: name }));
    byId("steps").append(element("label", {}, input, `${index + 1} ${title}`));
  });
}

function describeRange(name, title) {
  const [low, high] = RANGES[name], kind = name === "temperature" || name === "topP" ? "a number" : "a whole number";
  const limit = high === Infinity ? `at least ${low}` : `from ${name === "topP" ? "above 0" : low} to ${formatCount(high)}`;
  return `${title} must be ${kind} ${limit}${DEFAULTS[name] === null ? ", or empty" : ""}.`;
}

// Show the state in the controls.
function renderControls(state, at, last, numTyped) {
  const set = (id, value) => {
    // Not while the user types, for example "0." on the way to 0.5.
    if (document.activeElement !== byId(id) || readNumber(id, byId(id).value) !== value) byId(id).value = value ?? "";
  };
  if (byId("prompt").value !== state.prompt) byId("prompt").value = state.prompt;
  OPTION_INPUTS.forEach((name) => set(name, state[name]));
  byId("back").disabled = state.tokens === 0;
  byId("at").max = last;
  byId("at").value = at;
  const drawn = at - numTyped + 1;
  const text = at < numTyped ? `typed token ${at + 1} of ${numTyped}` : at === last ? `the next token (draw ${drawn})` : `draw ${drawn}`;
  byId("at-text").textContent = text;
  byId("at").setAttribute("aria-valuetext", text);
  byId(`step-${state.step}`).checked = true;
  byId("step-help").textContent = STEPS.find(({ name }) => name === state.step).help;
}

// Return the elements of a model's panel, in which `renderPanel` shows its state.
function makePanel(model) {
  const node = element("div", { class: "text", dir: "auto", tabindex: 0, role: "region", "aria-label": `Text of the ${model.title}` });
  const adopt = element("button", { type: "button", class: "small" }, "Let all models read this text");
  const token = element("div"), bars = element("div"), reasons = element("div");
  const list = element("details", {}, element("summary", {}, "All tokens as a table"));
  const figure = model.perplexity === null ? "" : `; perplexity on the validation text: ${formatNumber(model.perplexity)}`;
  const size = `reads ${model.contextLength === 1 ? "1 token" : `${model.contextLength} tokens`}${figure}`;
  byId("models").append(
    element("article", {}, element("h3", {}, model.title), element("p", { class: "details" }, size), node, adopt, token, bars, reasons, list),
  );
  return { node, adopt, token, bars, reasons, list };
}

function renderPanel(panel, described, text, at, tokenizer, state) {
  panel.token.replaceChildren(describeToken(text, at, tokenizer));
  panel.bars.replaceChildren(renderBars(described, tokenizer, state));
  if (state.step === "draw") panel.bars.prepend(renderDraw(described, tokenizer));
  panel.reasons.replaceChildren(...renderReasons(described, tokenizer));
  fillDetails(panel.list, () => renderTokens(text, tokenizer));
}

// Connect the pictures, and return an object whose `render(token)` draws them.
function makePictures(models, tokenizer, chooseToken) {
  const numTokens = tokenizer.vocabSize, counts = models.find((model) => model.kind === "counts");
  const networks = models.filter((model) => model.points).map((model) => ({ ...model, points: decodeArray(model.points) }));
  const frequent = counts && rankByFrequency(counts);
  let heatMapAt = () => null, tokenAt = () => null, shown = null;
  byId("heat-map-section").hidden = !counts;
  byId("embedding-section").hidden = !networks.length;
  networks.forEach((model, index) => byId("network").append(element("option", { value: index }, model.title)));
  byId("token").append(element("option", { value: "" }, "the last token that the models read"));
  for (let id = 0; id < numTokens; id++) byId("token").append(element("option", { value: id }, `${labelOf(tokenizer, id)} (${id})`));

  function render(token) {
    shown = token;
    if (counts) renderHeatMap(token);
    if (networks.length) renderEmbedding(token);
  }

  function renderHeatMap(token) {
    const tokens = chooseTokens(counts, frequent, numTokens, token);
    heatMapAt = drawHeatMap(byId("heat-map"), counts, tokens, token, tokenizer);
    byId("followers").replaceChildren(renderFollowers(counts, token, tokenizer));
    fillDetails(byId("counts-table"), () => renderCounts(counts, tokens, tokenizer));
  }

  function renderEmbedding(token) {
    const model = networks[byId("network").value], neighbours = findNeighbours(model, numTokens, token);
    const percent = (100 * (model.shares[0] + model.shares[1])).toFixed(0);
    tokenAt = drawEmbedding(byId("embedding"), model, numTokens, token, neighbours, tokenizer);
    byId("shares").textContent = `The picture shows ${percent} % of the variance of ${model.embeddingDim} dimensions.`;
    byId("neighbours").replaceChildren(renderNeighbours(neighbours, token, tokenizer));
  }

  byId("network").addEventListener("change", () => renderEmbedding(shown));
  byId("token").addEventListener("change", ({ target }) => chooseToken(target.value === "" ? null : Number(target.value)));
  byId("heat-map").addEventListener("click", (event) => {
    const found = heatMapAt(pointIn(byId("heat-map"), event));
    if (found) chooseToken(found.row);
  });
  byId("heat-map").addEventListener("pointermove", (event) => {
    const found = heatMapAt(pointIn(byId("heat-map"), event));
    byId("heat-map-text").textContent = found
      ? `${labelOf(tokenizer, found.row)} then ${labelOf(tokenizer, found.column)}: ${formatCount(countOf(counts, found.row, found.column))}`
      : "";
  });
  byId("embedding").addEventListener("click", (event) => {
    const found = tokenAt(pointIn(byId("embedding"), event));
    if (found !== null) chooseToken(found);
  });
  return { render };
}
