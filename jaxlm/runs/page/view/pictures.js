// Helpers of the pictures: a canvas as sharp as the screen, in the colours of the page.

// Return a drawing context for a canvas of this height, as wide as it is on the page, and the width.
function prepareCanvas(canvas, height) {
  const width = canvas.clientWidth || 300;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const drawing = canvas.getContext("2d");
  drawing.scale(ratio, ratio);
  drawing.font = "12px system-ui, sans-serif";
  return { drawing, width };
}

function colorOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Replace the content of a `details` element when it is open, because tables are large.
function fillDetails(details, makeContent) {
  const update = () => details.open && details.replaceChildren(details.firstElementChild, makeContent());
  details.ontoggle = update;
  update();
}

// Return the position of a pointer event in a canvas, in pixels of the page.
function pointIn(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
