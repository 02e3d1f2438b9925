// The models of the ladder. A model has `vocabSize`, `contextLength`, and `logits(context)`, which returns a
// Float32Array [V]. Operations and their order are those of XLA's CPU compiler, so that the logits of networks have
// the same bits as on a CPU with fused multiply-add.

const ARRAY_TYPES = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
const TANH_NUMERATOR = [
  -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-8,
  1.48572235717979e-5, 6.37261928875436e-4, 4.89352455891786e-3,
];
const TANH_DENOMINATOR = [1.19825839466702e-6, 1.18534705686654e-4, 2.268434632439e-3, 4.89352518554385e-3];
const MIN_K = 1e-30; // as in `jaxlm.models.smoothing`

// Decode an array of the page: `dtype`, and little-endian values in base64. float16 becomes float32.
function decodeArray({ dtype, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < bytes.length; index++) bytes[index] = text.charCodeAt(index);
  if (dtype !== "float16") return new ARRAY_TYPES[dtype](bytes.buffer);
  return Float32Array.from(new Uint16Array(bytes.buffer), halfToFloat);
}

function halfToFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

function makeModel(description, numTokens) {
  const makers = { counts: makeCountsBigram, bigram: makeNeuralBigram, mlp: makeMLP };
  const arrays = {};
  for (const [name, array] of Object.entries(description.arrays)) arrays[name] = decodeArray(array);
  const model = makers[description.kind](description, arrays);

  // A padded vocabulary has ids without a token.
  function logits(context) {
    return model.logits(context).fill(-Infinity, numTokens);
  }

  return { ...description, ...model, arrays, logits };
}

// log P(w | v) = log(c(v, w) + k) - log(c(v) + k V)
function makeCountsBigram({ vocabSize, smoothing }, { rows, columns, counts }) {
  const k = Math.fround(smoothing);
  const { fround } = Math;
  const logOf = (count) => fround(Math.log(fround(count + k)));

  // Return the tokens seen after a token, and how often.
  function countsAfter(token) {
    const begin = rows[token];
    const end = rows[token + 1];
    return { tokens: columns.subarray(begin, end), counts: counts.subarray(begin, end) };
  }

  function logits(context) {
    const seen = countsAfter(context[context.length - 1]);
    let total = 0;
    for (const count of seen.counts) total += count;
    total = fround(fround(total) + fround(smoothing * vocabSize));
    const logTotal = fround(Math.log(Math.max(total, MIN_K)));
    const logProbs = new Float32Array(vocabSize).fill(logOf(0) - logTotal);
    for (let index = 0; index < seen.tokens.length; index++) {
      logProbs[seen.tokens[index]] = logOf(seen.counts[index]) - logTotal;
    }
    return logProbs;
  }

  return { logits, countsAfter };
}

// logits = E[v] W + b
function makeNeuralBigram({ embeddingDim }, { embedding, kernel, bias }) {
  return {
    logits(context) {
      const token = context[context.length - 1];
      const embedded = embedding.subarray(token * embeddingDim, (token + 1) * embeddingDim);
      return addProduct(bias, embedded, kernel);
    },
  };
}

// logits = U tanh(H x + d) + b, x = [e1; ...; eN], and W x with direct connections
function makeMLP({ contextLength, embeddingDim }, arrays) {
  const { embedding, hiddenKernel, hiddenBias, kernel, bias, directKernel } = arrays;
  return {
    logits(context) {
      const embedded = new Float32Array(contextLength * embeddingDim);
      context.slice(context.length - contextLength).forEach((token, place) => {
        const begin = token * embeddingDim;
        embedded.set(embedding.subarray(begin, begin + embeddingDim), place * embeddingDim);
      });
      const hidden = addProduct(hiddenBias, embedded, hiddenKernel).map(tanh);
      const logits = addProduct(bias, hidden, kernel);
      return directKernel ? addProduct(logits, embedded, directKernel) : logits;
    },
  };
}

// tanh as XLA's CPU compiler computes it: an odd polynomial over an even one (also in Eigen), in float32.
function tanh(number) {
  const { fround } = Math;
  if (Math.abs(number) < 0.0004) return number;
  const clipped = fround(clip(number, -7.905311, 7.905311)); // beyond, the result is 1
  const square = fround(clipped * clipped);
  const evaluate = (coefficients) =>
    coefficients.reduce((sum, coefficient) => fround(square * sum + fround(coefficient)), 0);
  return fround(fround(clipped * evaluate(TANH_NUMERATOR)) / evaluate(TANH_DENOMINATOR));
}

// Return bias + vector matrix; the matrix has a row per element of the vector. Products are added row by row, each sum
// rounded to float32 once, as XLA's CPU compiler does with fused multiply-add.
function addProduct(bias, vector, matrix) {
  const width = bias.length;
  const sums = new Float32Array(width);
  const { fround } = Math;
  let row = 0;
  // Four rows in one pass take half the time of one by one.
  for (; row + 4 <= vector.length; row += 4) {
    const [a, b, c, d] = vector.subarray(row, row + 4);
    const first = row * width;
    const [second, third, fourth] = [first + width, first + 2 * width, first + 3 * width];
    for (let column = 0; column < width; column++) {
      let sum = fround(sums[column] + a * matrix[first + column]);
      sum = fround(sum + b * matrix[second + column]);
      sum = fround(sum + c * matrix[third + column]);
      sums[column] = sum + d * matrix[fourth + column];
    }
  }
  for (; row < vector.length; row++) {
    for (let column = 0; column < width; column++) {
      sums[column] += vector[row] * matrix[row * width + column];
    }
  }
  for (let column = 0; column < width; column++) sums[column] += bias[column];
  return sums;
}
