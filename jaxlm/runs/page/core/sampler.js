// The sampler of `jaxlm.sampling`: the same steps in the same order and rounded to float32, so that the same seed
// gives the same text. `distributions.py` explains the search in two levels.

const SAMPLE_FOLD = 2; // of `jaxlm.runs.setup`
const BLOCK_SIZE = 64;
const TILE_BITS = 4;
const TILE = 1 << TILE_BITS;
const TINY = 2 ** -126; // the smallest normal float32
const toFloat = Math.fround;

// The uniform number of token t in a sample.
function uniformOf(seed, t) {
  return drawUniform(foldIn(foldIn(makeKey(seed), SAMPLE_FOLD), t));
}

// Return the next-token distribution with the values of each step. `order` lists tokens in the order of the draw:
// by id, or by weight if a limit is set. `weights`, `blockSums` and `blockCumsums` belong to `order`.
//
// Options: temperature >= 0, where 0 is greedy; topK >= 1 or null; topP in (0, 1] or null.
function computeDistribution(logits, { temperature, topK, topP }) {
  const vocabSize = logits.length;
  const largest = maxOf(logits);
  const offset = largest === -Infinity ? 0 : largest;
  const divisor = toFloat(clip(temperature, TINY, 1 / TINY));
  const centered = new Float32Array(vocabSize);
  const divided = new Float32Array(vocabSize);
  for (let id = 0; id < vocabSize; id++) {
    centered[id] = logits[id] - offset;
    divided[id] = flush(centered[id] / divisor);
  }
  const numKept = temperature === 0 ? 1 : Math.min(topK ?? vocabSize, vocabSize);
  const mass = temperature === 0 ? 1 : (topP ?? 1);
  const isRanked = numKept < vocabSize || mass < 1;
  const order = isRanked ? rankTokens(divided, numKept) : countTo(vocabSize);
  const weights = exponentials(divided, order);
  if (mass < 1) keepMass(weights, mass);
  const blockSize = numKept <= 2 * BLOCK_SIZE ? numKept : BLOCK_SIZE;
  const blockSums = new Float32Array(Math.ceil(numKept / blockSize));
  for (let block = 0; block < blockSums.length; block++) {
    blockSums[block] = sumOf(weights.subarray(block * blockSize, (block + 1) * blockSize));
  }
  const blockCumsums = cumulativeSums(blockSums);
  const total = blockCumsums[blockCumsums.length - 1];
  return { logits, centered, divided, order, weights, blockSize, blockSums, blockCumsums, total, isRanked };
}

// Set the weights after the first tokens with this share of the total to 0.
function keepMass(weights, mass) {
  const sums = cumulativeSums(weights);
  const kept = toFloat(toFloat(Math.max(mass, TINY)) * sumOf(weights));
  for (let place = 0; place < weights.length; place++) {
    if (!(toFloat(sums[place] - weights[place]) < kept)) weights[place] = 0;
  }
}

// Return the place in `order` of the first token whose cumulative weight exceeds uniform * total, or -1 if no
// token has any weight.
function drawPlace({ weights, blockSize, blockSums, blockCumsums, total }, uniform) {
  if (!(total > 0)) return -1;
  const threshold = toFloat(uniform * total);
  const [block, sumBefore] = findFirstAbove(blockSums, blockCumsums, threshold);
  const inBlock = weights.subarray(block * blockSize, (block + 1) * blockSize);
  const [position] = findFirstAbove(inBlock, cumulativeSums(inBlock), toFloat(threshold - sumBefore));
  return block * blockSize + position;
}

// Return the token that `jaxlm sample` draws with the uniform number, or -1 if no token has any weight.
function drawToken(distribution, uniform) {
  const place = drawPlace(distribution, uniform);
  return place < 0 ? -1 : distribution.order[place];
}

// Return where the cumulative sums first exceed the threshold, and the sum before. Zero weights are skipped.
function findFirstAbove(weights, sums, threshold) {
  let last = 0;
  for (let index = 0; index < weights.length; index++) {
    if (!(weights[index] > 0)) continue;
    last = index;
    if (sums[index] > threshold) break;
  }
  return [last, toFloat(sums[last] - weights[last])];
}

// Return the first `numKept` ids by descending number, equal ones by ascending id. The numbers are at most 0. As in
// `lax.top_k`, 0 is before -0, except that a single id is the first of both. A radix sort by 11 bits at a time is
// stable, and takes 0.2 ms for 4,096 numbers; `sort` takes 0.35 ms.
function rankTokens(numbers, numKept = numbers.length) {
  if (numKept === 1) return Uint32Array.of(numbers.indexOf(maxOf(numbers))); // -0 equals 0
  const { length } = numbers;
  const bits = new Uint32Array(numbers.buffer); // ascending for descending numbers of at most 0
  let ids = countTo(length);
  let sorted = new Uint32Array(length);
  for (const shift of [0, 11, 22]) {
    const places = new Uint32Array(2 ** 11 + 1);
    for (let id = 0; id < length; id++) places[((bits[id] >>> shift) & 2047) + 1]++;
    for (let digit = 1; digit < places.length; digit++) places[digit] += places[digit - 1];
    for (let index = 0; index < length; index++) {
      const id = ids[index];
      sorted[places[(bits[id] >>> shift) & 2047]++] = id;
    }
    [ids, sorted] = [sorted, ids];
  }
  return ids.subarray(0, numKept);
}

// float32 cumulative sums, rounded in the order of XLA's CPU compiler: within tiles of 16, then over the tiles.
function cumulativeSums(values) {
  const sums = new Float32Array(values);
  const ends = new Float32Array(Math.ceil(sums.length / TILE));
  for (let tile = 0; tile < ends.length; tile++) {
    const end = Math.min((tile + 1) * TILE, sums.length);
    for (let index = tile * TILE + 1; index < end; index++) sums[index] += sums[index - 1];
    ends[tile] = sums[end - 1];
  }
  if (ends.length < 2) return sums;
  const offsets = cumulativeSums(ends);
  for (let index = TILE; index < sums.length; index++) sums[index] += offsets[(index >> TILE_BITS) - 1];
  return sums;
}

// The float32 sum of numbers, in the order of XLA's CPU compiler with vectors of 16 numbers: add four neighbouring
// vectors, then four of the results, and so on; then halves of the last vector. Another order can move the limit of
// top-p among equal tokens.
function sumOf(values) {
  if (values.length % 16) return toFloat(values.reduce((sum, value) => sum + value, 0));
  let sums = new Float32Array(values);
  while (sums.length > 16) {
    const groups = new Float32Array(16 * Math.ceil(sums.length / 64));
    for (let index = 0; index < sums.length; index++)
      groups[16 * Math.floor(index / 64) + (index % 16)] += sums[index];
    sums = groups;
  }
  for (let width = 8; width >= 1; width /= 2) {
    for (let lane = 0; lane < width; lane++) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

// Return exp(numbers[id]) for each id of `order`.
function exponentials(numbers, order) {
  const weights = new Float32Array(order.length);
  for (let place = 0; place < order.length; place++) {
    weights[place] = flush(Math.exp(numbers[order[place]]));
  }
  return weights;
}

// XLA's CPU compiler flushes subnormal float32 numbers to 0 or -0.
function flush(number) {
  return Math.abs(number) < TINY ? 0 * number : number;
}

function countTo(length) {
  const numbers = new Uint32Array(length);
  for (let index = 0; index < length; index++) numbers[index] = index;
  return numbers;
}

function maxOf(numbers) {
  let largest = -Infinity;
  for (let index = 0; index < numbers.length; index++) if (numbers[index] > largest) largest = numbers[index];
  return largest;
}

function clip(number, low, high) {
  return Math.min(Math.max(number, low), high);
}

// Return the loss of a token in nats, before temperature and limits.
function lossOf({ logits, centered, total }, token, { temperature, topK, topP }) {
  const isPlain = temperature === 1 && topK === null && topP === null; // the sum of the exponentials is known
  return isPlain ? Math.log(total) - centered[token] : -logProb(logits, token);
}

// Return the context of the token at `position`: the ids before it, after line ends if there are too few.
function contextAt(ids, position, contextLength, paddingId) {
  const padding = Array(Math.max(contextLength - position, 0)).fill(paddingId);
  return [...padding, ...ids.slice(Math.max(position - contextLength, 0), position)];
}

// Return the log-probability of a token under logits, in nats.
function logProb(logits, token) {
  const largest = maxOf(logits);
  if (largest === -Infinity) return -Infinity;
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id] - largest);
  return logits[token] - largest - Math.log(sum);
}
