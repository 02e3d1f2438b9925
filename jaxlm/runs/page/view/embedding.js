// The embedding of a network in two dimensions, and the nearest neighbours of a token in all dimensions.

const NUM_NEIGHBOURS = 10;
const MAX_LABELS = 100; // without a token's neighbours

// Return the tokens with the largest cosine similarity to a token, and the similarities.
function findNeighbours({ arrays: { embedding }, embeddingDim }, numTokens, token) {
  const rowOf = (id) => embedding.subarray(id * embeddingDim, (id + 1) * embeddingDim);
  const dot = (one, other) => one.reduce((sum, value, index) => sum + value * other[index], 0);
  const own = rowOf(token);
  const norm = Math.sqrt(dot(own, own));
  const similarities = Float64Array.from({ length: numTokens }, (_, id) => {
    const row = rowOf(id);
    return dot(row, own) / (Math.sqrt(dot(row, row)) * norm || 1);
  });
  const ids = Array.from(countTo(numTokens)).filter((id) => id !== token);
  ids.sort((one, other) => similarities[other] - similarities[one]);
  return ids.slice(0, NUM_NEIGHBOURS).map((id) => ({ id, similarity: similarities[id] }));
}

// Draw the tokens as points. Return a function that gives the token nearest to a point, or null.
function drawEmbedding(canvas, model, numTokens, token, neighbours, tokenizer) {
  const { points } = model;
  const margin = 24;
  const height = Math.min(canvas.clientWidth || 300, 460);
  const { drawing, width } = prepareCanvas(canvas, height);
  const range = (axis) => {
    let low = Infinity;
    let high = -Infinity;
    for (let id = 0; id < numTokens; id++) {
      low = Math.min(low, points[2 * id + axis]);
      high = Math.max(high, points[2 * id + axis]);
    }
    return [low, high - low || 1];
  };
  const [[left, spread], [bottom, rise]] = [range(0), range(1)];
  const place = (id) => [
    margin + ((points[2 * id] - left) / spread) * (width - 2 * margin),
    height - margin - ((points[2 * id + 1] - bottom) / rise) * (height - 2 * margin),
  ];
  const mark = (id, color, radius) => {
    drawing.fillStyle = color;
    drawing.beginPath();
    drawing.arc(...place(id), radius, 0, 2 * Math.PI);
    drawing.fill();
  };
  const write = (id) => drawing.fillText(labelOf(tokenizer, id), place(id)[0] + 5, place(id)[1] - 4);
  const [accent, choice, text] = ["--accent", "--choice", "--text"].map(colorOf);
  drawing.globalAlpha = numTokens > 500 ? 0.35 : 0.8;
  for (let id = 0; id < numTokens; id++) mark(id, accent, numTokens > 500 ? 1.5 : 3);
  drawing.globalAlpha = 1;
  drawing.fillStyle = text;
  if (numTokens <= MAX_LABELS) for (let id = 0; id < numTokens; id++) write(id);
  for (const { id } of neighbours) {
    mark(id, choice, 3.5);
    drawing.fillStyle = text;
    write(id);
  }
  mark(token, choice, 6);
  drawing.fillStyle = text;
  drawing.font = "bold 14px system-ui, sans-serif";
  write(token);
  return ([x, y]) => {
    let nearest = null;
    let smallest = 144; // 12 pixels
    for (let id = 0; id < numTokens; id++) {
      const [pointX, pointY] = place(id);
      const distance = (pointX - x) ** 2 + (pointY - y) ** 2;
      if (distance < smallest) [nearest, smallest] = [id, distance];
    }
    return nearest;
  };
}

function renderNeighbours(neighbours, token, tokenizer) {
  const rows = neighbours.map(({ id, similarity }) => [
    tokenElement(labelOf(tokenizer, id)),
    formatNumber(similarity),
  ]);
  const table = makeTable("", ["token", "cosine similarity"], rows);
  table.caption.append("Nearest to ", tokenElement(labelOf(tokenizer, token)), " in all dimensions");
  return table;
}
