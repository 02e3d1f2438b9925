// The controls: the form of the settings, the buttons, and the slider of the chosen token.

const OPTION_INPUTS = ["seed", "temperature", "topK", "topP"];

// Call the actions when the user changes a control.
function connectControls({ update, step, run, back, restart, move }) {
  byId("prompt").addEventListener("input", ({ target }) => update({ prompt: target.value, at: null }));
  for (const name of OPTION_INPUTS) {
    byId(name).addEventListener("input", ({ target }) => {
      const value = readNumber(name, target.value);
      const isEmptyAllowed = DEFAULTS[name] === null;
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
  const [low, high] = RANGES[name];
  const kind = name === "temperature" || name === "topP" ? "a number" : "a whole number";
  const limit =
    high === Infinity
      ? `at least ${low}`
      : `from ${name === "topP" ? "above 0" : low} to ${formatCount(high)}`;
  return `${title} must be ${kind} ${limit}${DEFAULTS[name] === null ? ", or empty" : ""}.`;
}

// Show the state in the controls.
function renderControls(state, at, last, numTyped) {
  const set = (id, value) => {
    // Not while the user types, for example "0." on the way to 0.5.
    if (document.activeElement !== byId(id) || readNumber(id, byId(id).value) !== value)
      byId(id).value = value ?? "";
  };
  if (byId("prompt").value !== state.prompt) byId("prompt").value = state.prompt;
  OPTION_INPUTS.forEach((name) => set(name, state[name]));
  byId("back").disabled = state.tokens === 0;
  byId("at").max = last;
  byId("at").value = at;
  const drawn = at - numTyped + 1;
  const text =
    at < numTyped
      ? `typed token ${at + 1} of ${numTyped}`
      : at === last
        ? `the next token (draw ${drawn})`
        : `draw ${drawn}`;
  byId("at-text").textContent = text;
  byId("at").setAttribute("aria-valuetext", text);
  byId(`step-${state.step}`).checked = true;
  byId("step-help").textContent = STEPS.find(({ name }) => name === state.step).help;
}
