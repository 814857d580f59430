// The timeline: presence or area of every label in every frame, the threshold, and where something was found.

import { prepared, style } from "./view.js";

const LANE = 5;

/**
 * Draws presence, or area relative to the largest, over the frames: `runs` is `[{results, threshold, place}]`, a result
 * or undefined a frame. An area is not drawn where nothing was found.
 */
export function drawTimeline(canvas, count, index, runs, kind) {
  const { context, width, height } = prepared(canvas);
  const labels = runs.flatMap((run) => (run.results.find(Boolean)?.labels ?? []).map((_, label) => ({ run, label })));
  const floor = height - LANE * labels.length - 3;
  const x = (frame) => (frame + 0.5) * (width / count);
  const y = (share) => 4 + (1 - share) * (floor - 8);
  const largest = Math.max(1, ...runs.flatMap((run) =>
    run.results.filter(Boolean).flatMap((result) => result.labels.map((label) => label.area_px))));
  const share = (label) => (kind === "presence" ? label.presence : label.found ? label.area_px / largest : null);
  context.fillStyle = "#0c0e10";
  const known = runs.length ? Math.min(...runs.map((run) => run.results.filter(Boolean).length)) : 0;
  context.fillRect(known * (width / count), 0, width, height);
  for (const run of kind === "presence" ? runs : []) {
    context.strokeStyle = "#aab3bb";
    context.lineWidth = 1;
    context.setLineDash([3, 4]);
    line(context, [[0, y(run.threshold)], [width, y(run.threshold)]]);
  }
  labels.forEach(({ run, label }, lane) => {
    const { colour, dash } = style(label, run.place);
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.setLineDash(dash);
    let piece = [];
    run.results.forEach((result, frame) => {
      const value = result ? share(result.labels[label]) : null;
      if (value !== null) piece.push([x(frame), y(value)]);
      else { line(context, piece); piece = []; }
    });
    line(context, piece);
    context.setLineDash([]);
    context.fillStyle = colour;
    run.results.forEach((result, frame) => {
      if (result?.labels[label].found) {
        context.fillRect(frame * (width / count), floor + LANE * lane, Math.max(1, width / count - 1), LANE - 2);
      }
    });
  });
  context.strokeStyle = "#ffffff";
  context.lineWidth = 2;
  line(context, [[x(index), 0], [x(index), height]]);
}

/** The frame under a point of the canvas. */
export function frameAt(canvas, clientX, count) {
  const { left, width } = canvas.getBoundingClientRect();
  return Math.max(0, Math.min(count - 1, Math.floor(((clientX - left) / width) * count)));
}

function line(context, points) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}
