// The heat map of a counts bigram: how often the token of the column follows the token of the row.

const NUM_FREQUENT = 40;
const MAX_WHOLE = 128; // tokens of a table that is shown whole
const MARGIN = 44; // pixels, for the labels

// Return ids by descending number of tokens that follow them in the training text.
function rankByFrequency(model, numTokens) {
  const totals = Array.from({ length: numTokens }, (_, token) =>
    model.countsAfter(token).counts.reduce((sum, count) => sum + count, 0),
  );
  return countTo(numTokens).sort((one, other) => totals[other] - totals[one]);
}

// Return the rows and columns to show: all tokens, or the most frequent ones and the row of `token`.
function chooseTokens(model, frequent, numTokens, token) {
  if (numTokens <= MAX_WHOLE)
    return { rows: Array.from(countTo(numTokens)), columns: Array.from(countTo(numTokens)) };
  const columns = Array.from(frequent.subarray(0, NUM_FREQUENT));
  return { rows: columns.includes(token) ? columns : [token, ...columns], columns };
}

function countOf(model, row, column) {
  const { tokens, counts } = model.countsAfter(row);
  const index = tokens.indexOf(column);
  return index < 0 ? 0 : counts[index];
}

function describeCell(model, { row, column }, tokenizer) {
  const pair = `${labelOf(tokenizer, row)} then ${labelOf(tokenizer, column)}`;
  return `${pair}: ${formatCount(countOf(model, row, column))}`;
}

// Draw the map. Return a function that gives the row and the column at a point, or null.
function drawHeatMap(canvas, model, { rows, columns }, token, tokenizer) {
  const cell = Math.max(((canvas.clientWidth || 300) - MARGIN) / columns.length, 1);
  const { drawing } = prepareCanvas(canvas, MARGIN + cell * rows.length);
  const counts = rows.map((row) => columns.map((column) => countOf(model, row, column)));
  const largest = Math.max(...counts.map((line) => Math.max(...line)), 1);
  drawing.fillStyle = colorOf("--accent");
  counts.forEach((line, y) =>
    line.forEach((count, x) => {
      drawing.globalAlpha = Math.log1p(count) / Math.log1p(largest);
      if (count) drawing.fillRect(MARGIN + x * cell, MARGIN + y * cell, cell, cell);
    }),
  );
  drawing.globalAlpha = 1;
  writeLabels(drawing, rows, columns, cell, tokenizer);
  drawing.strokeStyle = colorOf("--choice");
  drawing.lineWidth = 2;
  const place = rows.indexOf(token);
  if (place >= 0) drawing.strokeRect(MARGIN, MARGIN + place * cell, cell * columns.length, cell);
  return ([x, y]) => {
    const row = rows[Math.floor((y - MARGIN) / cell)];
    const column = columns[Math.floor((x - MARGIN) / cell)];
    return row === undefined || column === undefined ? null : { row, column };
  };
}

// Write the tokens beside the rows and above the columns: every second or third, if they would overlap.
function writeLabels(drawing, rows, columns, cell, tokenizer) {
  const every = Math.ceil(9 / cell);
  const limit = MARGIN - 4;
  const write = (token, x, y) => drawing.fillText(labelOf(tokenizer, token).slice(0, 7), x, y, limit);
  drawing.fillStyle = colorOf("--text");
  drawing.font = `${clip(cell, 9, 12)}px system-ui, sans-serif`;
  drawing.textBaseline = "middle";
  drawing.textAlign = "right";
  for (let y = 0; y < rows.length; y += every) write(rows[y], limit, MARGIN + (y + 0.5) * cell);
  drawing.textAlign = "left";
  drawing.rotate(-Math.PI / 2); // about the top left corner
  for (let x = 0; x < columns.length; x += every) write(columns[x], -limit, MARGIN + (x + 0.5) * cell);
  drawing.rotate(Math.PI / 2);
}

// Return the tokens that follow `token` most often, as a table.
function renderFollowers(model, token, tokenizer) {
  const { tokens, counts } = model.countsAfter(token);
  const places = Array.from(countTo(tokens.length));
  const total = counts.reduce((sum, count) => sum + count, 0);
  places.sort((one, other) => counts[other] - counts[one]);
  const rows = places
    .slice(0, 10)
    .map((place) => [
      tokenElement(labelOf(tokenizer, tokens[place])),
      formatCount(counts[place]),
      formatProbability(counts[place] / total),
    ]);
  const table = makeTable("", ["next token", "count", "share"], rows);
  table.caption.append(
    "After ",
    tokenElement(labelOf(tokenizer, token)),
    `: ${formatCount(total)} pairs, the most frequent`,
  );
  return table;
}

// Return the counts of the picture as a table.
function renderCounts(model, { rows, columns }, tokenizer) {
  const label = (token) => tokenElement(labelOf(tokenizer, token));
  const lines = rows.map((row) => [
    label(row),
    ...columns.map((column) => String(countOf(model, row, column))),
  ]);
  const table = makeTable(
    "Row: token. Column: next token.",
    ["", ...columns.map((token) => labelOf(tokenizer, token))],
    lines,
  );
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of counts" },
    table,
  );
}
