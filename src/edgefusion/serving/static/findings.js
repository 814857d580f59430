// What was found, in words and numbers.

import { presenceBar, swatch } from "./view.js";

const MEASURES = [
  ["regions", "Regions", ""], ["area", "Area, largest", "²"], ["feret_max", "Largest diameter", "1"],
  ["feret_min", "Smallest diameter", "1"], ["perimeter", "Perimeter", "1"], ["circularity", "Circularity", ""],
  ["depth_nearest", "Depth, nearest", "1"], ["depth_centroid", "Depth, centre", "1"], ["echo_mean", "Mean echo", ""],
  ["echo_around", "Echo around", ""], ["hypoechoic_fraction", "Hypoechoic fraction", ""],
  ["border_sharpness", "Border sharpness", "/"],
];

/** "12.3 mm²" where the size of a pixel is known, else "1505 px". */
export function area(label) {
  return label.area_mm2 === null ? `${label.area_px} px` : `${label.area_mm2.toFixed(1)} mm²`;
}

const percent = (value) => `${Math.floor(100 * value)} %`;

/** For each network a warning if it does not know such frames, and a card for each label. */
export function cards(runs) {
  return runs.flatMap(({ result, head, place, model }) => [...strange(result, runs.length > 1 ? model : ""),
    ...result.labels.map((label, number) => {
      const threshold = head.thresholds.presence;
      const card = make("div", { class: "card" });
      const top = make("div", { class: "card-head" }, swatch(number, place), make("span", { class: "name" }, label.name));
      if (runs.length > 1) top.append(make("span", { class: "model" }, model));
      const words = label.found ? area(label) : `No ${label.name} found with confidence`;
      card.append(top, make("p", { class: label.found ? "value" : "value none" }, words));
      card.append(make("div", { class: "presence" },
        make("span", {}, `Presence ${percent(label.presence)}`),
        make("span", {}, `threshold ${percent(threshold)}`),
        presenceBar(label.presence, threshold)));
      if (!label.found && label.presence >= threshold) {
        card.append(make("p", { class: "quiet" }, "The frame as a whole looks like it, but no place in it does enough."));
      }
      return card;
    })]);
}

/** Says, without alarm, that the answer below is about a frame unlike those that the network was trained on. */
function strange(result, model) {
  if (!result.unlike_training) return [];
  const drift = result.drift < 10 ? result.drift.toFixed(1) : Math.round(result.drift);
  return [make("div", { class: "strange" },
    make("p", {}, `Unlike what ${model || "this model"} knows`),
    make("p", { class: "quiet" }, `This frame differs from its training frames (drift ${drift}, limit 1). ` +
      "What it says here may be wrong, however sure it seems."))];
}

/** A table of the measures, a column for each label of each network; always of the same height, so that nothing jumps. */
export function measures(runs, millimetres) {
  const columns = runs.flatMap(({ result, place, model }) =>
    result.labels.map((label, number) => ({ label, number, place, model })));
  const length = millimetres ? "mm" : "px";
  const units = {
    "": ["", ""],
    1: [`_${length}`, length],
    "²": millimetres ? ["_mm2", "mm²"] : ["_px", "px"],
    "/": [`_per_${length}`, `/${length}`],
  };
  const table = make("table", { class: "measures" });
  const head = make("tr", {}, make("td"), ...columns.map(({ label, number, place, model }) => make("th",
    { scope: "col" }, swatch(number, place), make("span", { class: "hidden" }, `${label.name}, ${model}`))));
  if (columns.length > 1) table.append(make("thead", {}, head));
  const body = make("tbody");
  for (const [key, name, kind] of MEASURES) {
    const [ending, unit] = units[kind];
    const cells = columns.map(({ label }) => {
      const value = label.measures?.[key + ending];
      return make("td", {}, typeof value !== "number" ? "–" : value.toFixed(Number.isInteger(value) ? 0 : 2));
    });
    body.append(make("tr", {}, make("th", { scope: "row" }, unit ? `${name}, ${unit}` : name), ...cells));
  }
  table.append(body);
  return table;
}

/** A table of how the area of every label runs along the frames that were read: `runs` is `[{results, place, model}]`. */
export function profile(runs) {
  const columns = runs.flatMap(({ results, place, model }) => {
    const read = results.filter(Boolean);
    return (read[0]?.labels ?? []).map((label, number) => {
      const frames = read.map((result) => result.labels[number]);
      const seen = frames.filter((one) => one.found);
      const value = (one) => one.area_mm2 ?? one.area_px;
      const sizes = seen.map(value);
      const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
      const digits = label.area_mm2 === null ? 0 : 1;
      // A stretch without it counts as lost where it is seen before and after.
      const runsOf = frames.map((one) => (one.found ? "1" : "0")).join("").replace(/^0+|0+$/g, "");
      const lost = (runsOf.match(/0+/g) ?? []).length;
      const cells = seen.length
        ? [`${seen.length} of ${frames.length}`, least.toFixed(digits), most.toFixed(digits), (most / least).toFixed(2), `${lost}`]
        : [`0 of ${frames.length}`, "–", "–", "–", "–"];
      return { cells, name: `${label.name}, ${model}`, number, place, unit: label.area_mm2 === null ? "px" : "mm²" };
    });
  });
  const unit = columns[0]?.unit ?? "px";
  const names = ["Frames that show it", `Smallest area, ${unit}`, `Largest area, ${unit}`, "Largest over smallest", "Times lost"];
  const table = make("table", { class: "measures" });
  if (columns.length > 1) {
    table.append(make("thead", {}, make("tr", {}, make("td"), ...columns.map(({ name, number, place }) =>
      make("th", { scope: "col" }, swatch(number, place), make("span", { class: "hidden" }, name))))));
  }
  table.append(make("tbody", {}, ...names.map((name, row) => make("tr", {}, make("th", { scope: "row" }, name),
    ...columns.map(({ cells }) => make("td", {}, cells[row]))))));
  return table;
}

/** An element with attributes and children. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
