// Connect the page: read the data, draw tokens, and show the state.

const FRAME_MILLISECONDS = 150; // of computing between two updates of the page

// `data` is the JSON document of the page, as `build.py` writes it.
function startPage(data) {
  const tokenizer = { ...makeTokenizer(data.tokenizer), paddingId: data.tokenizer.paddingId };
  const models = data.models.map((model) => makeModel(model, tokenizer.vocabSize));
  const defaults = { ...DEFAULTS, prompt: data.prompt };
  const texts = makeTexts(models);
  const panels = models.map(makePanel);
  const pictures = makePictures(models, tokenizer, (token) => update({ token }));
  let state = readHash(location.hash, defaults, tokenizer.vocabSize);
  let isComputing = false;
  let announcement = null;
  let addressTimer;

  // Change the state, then compute and show what follows from it.
  function update(changes) {
    const before = state;
    state = { ...state, ...changes };
    if (!haveSameDraws(before, state)) restart();
    else if (state.tokens < before.tokens) shortenTexts(texts, state.tokens);
    clearTimeout(addressTimer); // Safari raises an error after 100 changes of the address in 30 seconds
    addressTimer = setTimeout(() => history.replaceState(null, "", writeHash(state, defaults)), 300);
    compute();
  }

  function restart() {
    let ids = [];
    try {
      ids = tokenizer.encode(state.prompt);
      byId("error").textContent = "";
    } catch (error) {
      byId("error").textContent = `The prompt: ${error.message}.`;
    }
    restartTexts(texts, ids);
  }

  // Advance the texts, with an update of the page after each frame.
  function compute() {
    if (isComputing) return;
    isComputing = true;
    byId("models").setAttribute("aria-busy", "true");
    const advance = () => {
      const end = performance.now() + FRAME_MILLISECONDS;
      let isChanged = true;
      while (isChanged && performance.now() < end) {
        isChanged = false;
        for (const text of texts) isChanged = advanceText(text, tokenizer, state) || isChanged;
      }
      isComputing = isChanged;
      renderTexts();
      if (isChanged) requestAnimationFrame(advance);
      else renderAll();
      byId("models").setAttribute("aria-busy", String(isComputing));
    };
    advance();
  }

  // The number of positions: those of all tokens, and the next one.
  function lastPosition() {
    return Math.max(...texts.map((text) => text.nats.length));
  }

  function position() {
    return Math.min(state.at ?? Infinity, lastPosition());
  }

  function renderTexts() {
    texts.forEach((text, index) => renderText(panels[index].node, text, tokenizer, position()));
    if (state.at === null) for (const { node } of panels) node.scrollTop = node.scrollHeight;
  }

  function renderAll() {
    const at = position();
    const numTyped = texts[0].numTyped;
    renderControls(state, at, lastPosition(), numTyped);
    const descriptions = texts.map((text) =>
      describePosition(text, Math.min(at, text.nats.length), tokenizer, state),
    );
    descriptions.forEach((described, index) =>
      renderPanel(panels[index], described, texts[index], at, tokenizer, state),
    );
    byId("favourites").replaceChildren(renderFavourites(descriptions, tokenizer));
    byId("different-texts").hidden = haveSameContexts(descriptions);
    byId("token").value = state.token ?? "";
    pictures.render(state.token ?? descriptions[0].context[descriptions[0].context.length - 1]);
    byId("commands").textContent = models.map((model) => sampleCommand(model, state)).join("\n");
    byId("live").textContent = announcement === null ? "" : announcement(texts, tokenizer, state);
    announcement = null;
  }

  function announce(change, message) {
    announcement = message;
    update({ ...change, at: null });
  }

  connectControls({
    update,
    step: () => announce({ tokens: Math.min(state.tokens + 1, RANGES.tokens[1]) }, announceLast),
    run: (count) => announce({ tokens: Math.min(state.tokens + count, RANGES.tokens[1]) }, announceLast),
    back: () => announce({ tokens: Math.max(state.tokens - 1, 0) }, announceLast),
    restart: () => announce({ tokens: 0 }, announceLast),
    move: (at) => update({ at: at >= lastPosition() ? null : at }),
  });
  panels.forEach((panel, index) => {
    panel.node.addEventListener("click", (event) => {
      const node = event.target.closest("[data-position]");
      if (node) update({ at: Number(node.dataset.position) });
    });
    panel.adopt.addEventListener("click", () => {
      const characters = Array.from(decodeIds(tokenizer, texts[index].ids));
      const prompt = characters.slice(-MAX_PROMPT_LENGTH).join("");
      announce({ prompt, tokens: 0 }, () => `All models now read the text of the ${models[index].title}.`);
    });
  });
  addEventListener("hashchange", () => update(readHash(location.hash, defaults, tokenizer.vocabSize)));
  addEventListener("resize", renderAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renderAll);
  restart();
  compute();
}

// Say which token each model has drawn last.
function announceLast(texts, tokenizer, state) {
  if (state.tokens === 0) return "No token is drawn.";
  const drawn = texts.map(
    ({ model, ids, isEnded }) =>
      `${model.title}: ${isEnded ? "no token has any probability" : labelOf(tokenizer, ids[ids.length - 1])}`,
  );
  return `Token ${state.tokens}. ${drawn.join("; ")}.`;
}
