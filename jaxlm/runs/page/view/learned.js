// The section about what the models have learned: the heat map, the embedding, and the choice of a token.

// Connect the pictures, and return an object whose `render(token)` draws them.
function makePictures(models, tokenizer, chooseToken) {
  const numTokens = tokenizer.vocabSize;
  const counts = models.find((model) => model.kind === "counts");
  const networks = models
    .filter((model) => model.points)
    .map((model) => ({ ...model, points: decodeArray(model.points) }));
  const frequent = counts && rankByFrequency(counts, numTokens);
  let heatMapAt = () => null;
  let tokenAt = () => null;
  let shown = null;
  byId("heat-map-section").hidden = !counts;
  byId("embedding-section").hidden = !networks.length;
  networks.forEach((model, index) =>
    byId("network").append(element("option", { value: index }, model.title)),
  );
  byId("token").append(element("option", { value: "" }, "the last token that the models read"));
  for (let id = 0; id < numTokens; id++)
    byId("token").append(element("option", { value: id }, `${labelOf(tokenizer, id)} (${id})`));

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
    const model = networks[byId("network").value];
    const neighbours = findNeighbours(model, numTokens, token);
    const percent = (100 * (model.shares[0] + model.shares[1])).toFixed(0);
    tokenAt = drawEmbedding(byId("embedding"), model, numTokens, token, neighbours, tokenizer);
    byId("shares").textContent =
      `The picture shows ${percent} % of the variance of ${model.embeddingDim} dimensions.`;
    byId("neighbours").replaceChildren(renderNeighbours(neighbours, token, tokenizer));
  }

  byId("network").addEventListener("change", () => renderEmbedding(shown));
  byId("token").addEventListener("change", ({ target }) =>
    chooseToken(target.value === "" ? null : Number(target.value)),
  );
  byId("heat-map").addEventListener("click", (event) => {
    const found = heatMapAt(pointIn(byId("heat-map"), event));
    if (found) chooseToken(found.row);
  });
  byId("heat-map").addEventListener("pointermove", (event) => {
    const found = heatMapAt(pointIn(byId("heat-map"), event));
    byId("heat-map-text").textContent = found ? describeCell(counts, found, tokenizer) : "";
  });
  byId("embedding").addEventListener("click", (event) => {
    const found = tokenAt(pointIn(byId("embedding"), event));
    if (found !== null) chooseToken(found);
  });
  return { render };
}
