// The state of the page: the user's choices, which are also in the URL's hash, and the texts that follow.

const DEFAULTS = {
  prompt: "",
  seed: 0,
  temperature: 1,
  topK: null,
  topP: null,
  tokens: 0, // number of tokens to draw
  at: null, // position of the chosen token, from 0; null is the next token
  step: "draw", // the step of sampling that the bars show
  token: null, // the token in the heat map and the embedding; null is the last one before the chosen token
};
// Without a prototype, because a hash can have any name.
const RANGES = Object.assign(Object.create(null), {
  seed: [0, 2 ** 32 - 1],
  temperature: [0, Infinity],
  topK: [1, 2 ** 31 - 1],
  topP: [0, 1],
  tokens: [0, 10000],
  at: [0, 20000],
  token: [0, 2 ** 31],
});
const MAX_PROMPT_LENGTH = byId("prompt").maxLength; // characters

// Return the state that a hash such as "#prompt=To+be&seed=3" describes. Invalid values are ignored.
function readHash(hash, defaults, numTokens) {
  const state = { ...defaults };
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (name === "prompt") state.prompt = Array.from(text).slice(0, MAX_PROMPT_LENGTH).join("");
    else if (name === "step" && STEPS.some((step) => step.name === text)) state.step = text;
    else if (name in RANGES) state[name] = readNumber(name, text) ?? defaults[name];
  }
  if (state.token >= numTokens) state.token = null;
  return state;
}

function writeHash(state, defaults) {
  const changed = Object.entries(state).filter(([name, value]) => value !== defaults[name] && value !== null);
  return `#${new URLSearchParams(changed)}`;
}

// Return the number in a text, or null if it is empty, not a number, or outside the range of the option.
function readNumber(name, text) {
  const number = Number(text);
  const [low, high] = RANGES[name];
  const isInteger = name !== "temperature" && name !== "topP";
  const isValid = text.trim() !== "" && number >= low && number <= high && Number.isFinite(number);
  if (!isValid || (isInteger && !Number.isInteger(number)) || (name === "topP" && number === 0)) return null;
  return number;
}

// Return the texts of the models, in which nothing is computed yet. `nats` has the losses of the first tokens, and
// `numShown` of these have not changed since they were shown.
function makeTexts(models) {
  return models.map((model) => ({ model, ids: [], nats: [], numTyped: 0, numShown: 0, isEnded: false }));
}

function replaceText(text, ids, numNats) {
  const numShown = Math.min(text.numShown, numNats);
  Object.assign(text, { ids, nats: text.nats.slice(0, numNats), numShown, isEnded: false });
}

// Return whether the settings of two states lead to the same draws.
function haveSameDraws(one, other) {
  return ["prompt", "seed", "temperature", "topK", "topP"].every((name) => one[name] === other[name]);
}

// Restart the texts with a prompt. The losses of a common beginning stay.
function restartTexts(texts, promptIds) {
  for (const text of texts) {
    let common = 0;
    while (common < Math.min(text.numTyped, promptIds.length) && text.ids[common] === promptIds[common])
      common++;
    replaceText(text, [...promptIds], common);
    text.numTyped = promptIds.length;
  }
}

// Remove the last tokens, so that at most `numDrawn` are drawn.
function shortenTexts(texts, numDrawn) {
  for (const text of texts) {
    const length = text.numTyped + numDrawn;
    if (text.ids.length > length) replaceText(text, text.ids.slice(0, length), length);
  }
}

// Compute the loss of the next typed token, or draw a token. Return false if the text is complete.
function advanceText(text, tokenizer, state) {
  const { model, ids, nats, numTyped } = text;
  if (nats.length >= numTyped + state.tokens || text.isEnded) return false;
  const context = contextAt(ids, nats.length, model.contextLength, tokenizer.paddingId);
  const logits = model.logits(context);
  if (nats.length < numTyped) {
    nats.push(-logProb(logits, ids[nats.length]));
    return true;
  }
  const distribution = computeDistribution(logits, state);
  const token = drawToken(distribution, uniformOf(state.seed, nats.length - numTyped));
  if (token < 0) {
    text.isEnded = true;
    return true;
  }
  ids.push(token);
  nats.push(lossOf(distribution, token, state));
  return true;
}

// Return the command that writes the same text.
function sampleCommand(model, state) {
  const quote = (text) => (/^[\w./:=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const options = { seed: state.seed, "num-tokens": state.tokens, temperature: state.temperature };
  if (state.topK !== null) options["top-k"] = state.topK;
  if (state.topP !== null) options["top-p"] = state.topP;
  const words = Object.entries(options).map(([name, value]) => `--${name} ${value}`);
  return `jaxlm sample ${quote(model.source)} ${quote(`--prompt=${state.prompt}`)} ${words.join(" ")}`;
}
