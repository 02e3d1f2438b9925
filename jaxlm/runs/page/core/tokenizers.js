// The tokenizers of `jaxlm.text.tokenizers`. A tokenizer has `vocabSize`, `encode(text)`, which returns ids, and
// `tokenBytes(id)`, which may start or end within a character.

const UTF8 = new TextEncoder();

// White space of GPT-2's pattern: Unicode's White_Space. JavaScript's \s lacks U+0085 and adds U+FEFF.
const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORDS = new RegExp(
  `'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`,
  "gu",
);

function makeTokenizer(description) {
  const makers = { char: makeCharTokenizer, byte: makeByteTokenizer, bpe: makeBPETokenizer };
  return makers[description.kind](description);
}

function makeCharTokenizer({ tokens }) {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const bytes = tokens.map((token) => UTF8.encode(token));

  function encode(text) {
    return Array.from(text, (character) => {
      if (ids.has(character)) return ids.get(character);
      throw new RangeError(`the models do not know the character ${JSON.stringify(character)}; remove it`);
    });
  }

  return { vocabSize: tokens.length, encode, tokenBytes: (id) => bytes[id] };
}

function makeByteTokenizer() {
  return {
    vocabSize: 256,
    encode: (text) => Array.from(UTF8.encode(text)),
    tokenBytes: (id) => Uint8Array.of(id),
  };
}

// `tokens` and `alphabet` use GPT-2's alphabet of bytes: byte b is written as the character `alphabet[b]`.
function makeBPETokenizer({ tokens, alphabet }) {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const characters = Array.from(alphabet);
  const byteOf = new Map(characters.map((character, byte) => [character, byte]));
  const bytes = tokens.map((token) =>
    Uint8Array.from(Array.from(token), (character) => byteOf.get(character)),
  );

  // Repeatedly merge the adjacent pair whose token has the lowest id, the first of equals.
  function encodeWord(word) {
    const parts = Array.from(UTF8.encode(word), (byte) => characters[byte]);
    if (ids.has(parts.join(""))) return [ids.get(parts.join(""))];
    const mergedId = (index) => ids.get(parts[index] + parts[index + 1]) ?? Infinity;
    const merged = parts.slice(1).map((_, index) => mergedId(index)); // of each pair
    for (;;) {
      let place = 0;
      for (let index = 1; index < merged.length; index++) if (merged[index] < merged[place]) place = index;
      if (!(merged[place] < Infinity)) return parts.map((part) => ids.get(part));
      parts.splice(place, 2, parts[place] + parts[place + 1]);
      merged.splice(place, 1);
      if (place > 0) merged[place - 1] = mergedId(place - 1);
      if (place < merged.length) merged[place] = mergedId(place);
    }
  }

  return {
    vocabSize: tokens.length,
    encode: (text) => (text.match(WORDS) ?? []).flatMap(encodeWord),
    tokenBytes: (id) => bytes[id],
  };
}

// Return the part of the text that each id completes. A character of several tokens belongs to the last of them.
// Bytes that are not UTF-8 become U+FFFD, as in Python.
function decodeEach(tokenizer, ids) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // without the option, it drops U+FEFF
  const texts = ids.map((id) => decoder.decode(tokenizer.tokenBytes(id), { stream: true }));
  const rest = decoder.decode();
  if (rest) texts[texts.length - 1] += rest;
  return texts;
}

function decodeIds(tokenizer, ids) {
  return decodeEach(tokenizer, ids).join("");
}
