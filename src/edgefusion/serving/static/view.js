// Drawing: the frame, layers over it, and contours that are told apart by their dashes and names, not by colour alone.

// Magenta, which no grey is taken for, then colours of Okabe and Ito's palette, as everywhere in EdgeFusion.
const COLOURS = ["#ff4dff", "#f0e442", "#56b4e9", "#e69f00", "#ffffff"];
const DASHES = [[], [9, 5], [2, 5], [12, 4, 2, 4]];
const TINTS = { border: [86, 180, 233], probability: [240, 228, 66] };

/** Colour and dashes of a label's contour; `place` is 0 for the first network, 1 for the one it is compared with. */
export function style(label, place) {
  const number = label + 2 * place;
  return { colour: COLOURS[number % COLOURS.length], dash: DASHES[number % DASHES.length] };
}

/** A grey picture as a layer of one colour, the more opaque the lighter it was. */
export async function tinted(blob, kind) {
  const picture = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const [red, green, blue] = TINTS[kind];
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data[i + 3] = pixels.data[i];
    pixels.data[i] = red;
    pixels.data[i + 1] = green;
    pixels.data[i + 2] = blue;
  }
  context.putImageData(pixels, 0, 0);
  return createImageBitmap(canvas);
}

/** Makes a canvas as sharp as the screen, and gives its context and size in CSS pixels. */
export function prepared(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const [columns, rows] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Draws a picture as large as fits, layers over it, and contours: `[{contours, label, place, name}]`. */
export function draw(canvas, picture, layers, outlines) {
  const { context, width, height } = prepared(canvas);
  const scale = Math.min(width / picture.width, height / picture.height);
  const left = (width - scale * picture.width) / 2;
  const top = (height - scale * picture.height) / 2;
  context.imageSmoothingQuality = "high";
  const place = [left, top, scale * picture.width, scale * picture.height];
  context.drawImage(picture, ...place);
  for (const { bitmap, opacity } of layers) {
    context.globalAlpha = opacity;
    context.drawImage(bitmap, ...place);
  }
  context.globalAlpha = 1;
  for (const outline of outlines) {
    const { colour, dash } = style(outline.label, outline.place);
    for (const contour of outline.contours) {
      context.beginPath();
      // Contours run through the centres of pixels.
      for (const [x, y] of contour) context.lineTo(left + scale * (x + 0.5), top + scale * (y + 0.5));
      context.closePath();
      context.lineJoin = "round";
      context.setLineDash([]);
      stroke(context, "#000b", 4);
      context.setLineDash(dash);
      stroke(context, colour, 2);
    }
  }
  context.setLineDash([]);
  for (const outline of outlines) tag(context, outline, left, top, scale, width, height);
}

function stroke(context, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

/** The name of a contour beside its largest piece. */
function tag(context, outline, left, top, scale, width, height) {
  const largest = outline.contours.reduce((a, b) => (b.length > a.length ? b : a), []);
  if (!largest.length || !outline.name) return;
  const right = Math.max(...largest.map((point) => point[0]));
  const rows = largest.map((point) => point[1]);
  const row = outline.place ? Math.max(...rows) : Math.min(...rows);
  context.font = "600 13px system-ui, sans-serif";
  const room = context.measureText(outline.name).width;
  const x = Math.min(left + scale * right + 8, width - room - 6);
  const y = Math.min(Math.max(top + scale * row + 5, 16), height - 8);
  context.lineJoin = "round";
  context.strokeStyle = "#000d";
  context.lineWidth = 4;
  context.strokeText(outline.name, x, y);
  context.fillStyle = style(outline.label, outline.place).colour;
  context.fillText(outline.name, x, y);
}

/** A short line in the style of a contour, for legends. */
export function swatch(label, place) {
  const { colour, dash } = style(label, place);
  const svg = element("svg", { viewBox: "0 0 34 8", width: 34, height: 8, "aria-hidden": "true" });
  svg.append(element("line", {
    x1: 1, y1: 4, x2: 33, y2: 4, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash.join(" "),
  }));
  return svg;
}

/** A bar of presence from 0 to 1 with a mark at the threshold. */
export function presenceBar(value, threshold) {
  const svg = element("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(element("rect", { x: 0, y: 2, width: 100, height: 4, fill: "#3a434b" }));
  svg.append(element("rect", { x: 0, y: 2, width: 100 * value, height: 4, fill: "#d5dade" }));
  svg.append(element("rect", { x: 100 * threshold - 0.5, y: 0, width: 1, height: 8, fill: "#ffb84d" }));
  return svg;
}

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
