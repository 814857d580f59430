// The page: what is open, what is shown of it, and what keys and buttons do.

import { ask, Failure, onTokenNeeded } from "./api.js";
import { OpenFile } from "./clip.js";
import { exported } from "./export.js";
import { cards, make, measures, profile } from "./findings.js";
import { onDrop, onKeys } from "./input.js";
import { Live } from "./live.js";
import { drawTimeline, frameAt } from "./timeline.js";
import { draw } from "./view.js";

const $ = (id) => document.getElementById(id);
const figures = [...document.querySelectorAll("#panes figure")];

let models = [];
let file = null;
let live = null;
let lastLive = null;
let frame = 0;
let playing = false;
let drawing = 0; // Counts drawings, so that a late one does not paint over a newer one.

// --- what is open ----------------------------------------------------------------------------------------------

async function open(source) {
  leaveLive();
  pause();
  hush();
  say(source ? "Opening…" : "Simulating the example…");
  document.body.setAttribute("aria-busy", "true");
  try {
    const about = await (source ? upload(source) : ask("/v1/sessions/example", { method: "POST" })).then((r) => r.json());
    file?.close();
    file = new OpenFile(about, source?.name);
    frame = 0;
    changed();
  } catch (error) {
    fail(error);
    changed();
  } finally {
    document.body.removeAttribute("aria-busy");
  }
}

function upload(source) {
  const form = new FormData();
  form.append("file", source, "upload"); // Its name may be a patient's, and stays here.
  const spacing = Number($("spacing").value);
  return ask(`/v1/sessions${spacing > 0 ? `?spacing_mm=${spacing}` : ""}`, { method: "POST", body: form });
}

/** The networks that are shown, with what they say: one, or two to compare. */
function runs() {
  const names = [$("model").value, $("other").value].filter(Boolean);
  return names.map((model, place) => ({ model, place, ...file.run(model, changed) }));
}

// --- showing it ------------------------------------------------------------------------------------------------

let scheduled = false;
function changed() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; show(); });
}

function show() {
  if (live) { if (lastLive) paintLive(); return; }
  if (!file) return;
  const current = runs();
  frame = Math.min(frame, file.count - 1);
  const here = current.filter((run) => run.results[frame] && run.head)
    .map((run) => ({ ...run, result: run.results[frame] }));
  const error = current.map((run) => run.error).find(Boolean);
  if (error) fail(new Failure(error));
  describe(here, current);
  showClip(current);
  paint(here).catch(fail);
}

function describe(here, current) {
  const { about } = file;
  const pixels = `${about.size.width} × ${about.size.height} px`;
  const sides = [...new Set(about.spacing_mm?.map((side) => side.toFixed(3)))].join(" × ");
  const spacing = sides ? `${sides} mm a pixel` : "size of a pixel not known";
  const region = current.find((run) => run.head)?.head.region;
  const part = region && (region.height < about.size.height || region.width < about.size.width)
    ? `looked at in ${region.width} × ${region.height} px of it` : "";
  const what = about.kind === "example" ? "Example: a simulated neck, no patient" : file.name;
  $("source").textContent = [what, pixels, part, spacing, file.note].filter(Boolean).join(" · ");
  found(here, about.spacing_mm !== null);
  if (here.length < current.length) {
    if (!current.some((run) => run.error)) $("cards").append(make("p", { class: "quiet" }, "Not read yet…"));
  }
  verdict(here);
  const dicom = about.kind === "dicom";
  document.querySelector("[data-export=seg]").disabled = !dicom;
  $("seg-why").textContent = `Mask and overlay are of this frame, JSON of all frames.${
    dicom ? "" : " DICOM SEG needs a DICOM file."}`;
}

function found(here, millimetres) {
  $("cards").replaceChildren(...cards(here));
  $("measures").replaceChildren(measures(here, millimetres));
}

function verdict(here) {
  const words = here.map((run) => (here.length > 1 ? `${run.model}: ` : "") + run.result.summary).join(" ");
  say(words || "Reading…", here.length ? here.some((run) => run.result.labels.some((l) => l.found)) : null);
}

function say(words, found = null) {
  if ($("verdict").textContent !== words) $("verdict").textContent = words;
  $("verdict").dataset.found = found === null ? "" : found ? "yes" : "no";
}

function outlines(here) {
  if (!$("contours").checked) return [];
  return here.flatMap((run) => run.result.labels.map((label, number) => ({
    contours: label.contours, label: number, place: run.place,
    name: here.length > 1 ? `${label.name}, ${run.model}` : label.name,
  })));
}

async function paint(here) {
  const turn = (drawing += 1);
  const model = $("model").value;
  const chosen = Number($("label").value) || 0;
  const wanted = figures.filter((figure) => !figure.hidden);
  const layers = ["border", "probability"].filter((name) => Number($(name).value) > 0);
  const [pictures, bitmaps] = await Promise.all([
    Promise.all(wanted.map((figure) => file.picture(frame, figure.dataset.layer, model))),
    Promise.all(layers.map((name) => file.picture(frame, name, model, chosen))),
  ]);
  if (turn !== drawing || live) return;
  const over = layers.map((name, i) => ({ bitmap: bitmaps[i], opacity: Number($(name).value) / 100 }));
  wanted.forEach((figure, i) => draw(figure.firstElementChild, pictures[i], i ? [] : over, outlines(here)));
  figures[0].firstElementChild.setAttribute("aria-label", `Frame ${frame + 1} of ${file.count}. ${$("verdict").textContent}`);
}

function showClip(current) {
  $("clip").hidden = $("profile-box").hidden = file.count < 2;
  if (file.count < 2) return;
  $("profile").replaceChildren(profile(current));
  $("scrub").max = file.count - 1;
  $("scrub").value = frame;
  $("scrub").setAttribute("aria-valuetext", `Frame ${frame + 1} of ${file.count}. ${$("verdict").textContent}`);
  $("position").textContent = `${frame + 1} / ${file.count}${file.complete ? "" : "…"}`;
  const read = Math.min(...current.map((run) => run.results.filter(Boolean).length));
  $("progress").textContent = read < file.count ? `${read} of ${file.count} frames read` : "";
  const threshold = (run) => run.head?.thresholds.presence ?? 0.5;
  const kind = document.querySelector("[name=curve]:checked").value;
  drawTimeline($("curve"), file.count, frame, current.map((run) => ({ ...run, threshold: threshold(run) })), kind);
  $("curve-legend").textContent = `${kind === "presence"
    ? "Curve: presence in each frame; dashes across: the threshold."
    : "Curve: area in each frame, relative to the largest."} Bars below: frames in which it was found.`;
}

// --- stepping and playing ----------------------------------------------------------------------------------------

function go(to) {
  frame = Math.max(0, Math.min(file.count - 1, to));
  changed();
}

function pause() {
  playing = false;
  $("verdict").setAttribute("aria-live", "polite");
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
}

async function play() {
  if (playing) { pause(); return; }
  playing = true;
  $("verdict").setAttribute("aria-live", "off"); // Nobody can listen to ten sentences a second.
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
  if (frame === file.count - 1) go(0);
  const playedFile = file;
  try {
    while (playing && file === playedFile && frame < file.count - 1) {
      const due = performance.now() + 1000 / Math.min(30, file.about.rate || 10);
      const model = $("model").value;
      for (let ahead = 2; ahead < 5; ahead += 1) {
        if (frame + ahead < file.count) file.picture(frame + ahead, "image", model).catch(() => {});
      }
      await file.picture(frame + 1, "image", model);
      await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
      if (playing && file === playedFile) go(frame + 1);
    }
  } catch (error) {
    if (file === playedFile) fail(error);
  }
  if (file === playedFile) pause();
}

// --- live --------------------------------------------------------------------------------------------------------

async function startLive(kind) {
  pause();
  hush();
  live?.stop();
  const view = new Live(
    (bitmap, answer, numbers) => { lastLive?.bitmap.close(); lastLive = { bitmap, answer, numbers }; changed(); },
    (words) => { if (view === live) { leaveLive(); if (words) fail(new Failure(words)); } },
  );
  try {
    await view.start(kind, $("model").value);
  } catch (error) {
    fail(error);
    return;
  }
  live = view;
  setView("single");
  $("clip").hidden = $("profile-box").hidden = true;
  $("live-figures").hidden = false;
  setLive(true);
  $("source").textContent = kind === "screen" ? "Live: screen" : "Live: camera";
  say("Waiting for the first frame…");
}

/** Nothing of a live view is kept, so nothing of it can be stepped through, looked up or saved. */
function setLive(on) {
  $("verdict").setAttribute("aria-live", on ? "off" : "polite");
  $("stop").disabled = !on;
  for (const id of ["views", "sliders", "exports"]) $(id).disabled = on;
}

function leaveLive() {
  const was = live;
  live = null;
  was?.stop();
  lastLive?.bitmap.close();
  lastLive = null;
  setLive(false);
  changed();
}

function paintLive() {
  const { bitmap, answer, numbers } = lastLive;
  const head = { thresholds: models.find((model) => model.name === $("model").value).thresholds };
  const here = answer.error ? [] : [{ result: answer, head, place: 0, model: "" }];
  draw(figures[0].firstElementChild, bitmap, [], outlines(here));
  found(here, false);
  if (answer.error) say(answer.error); else verdict(here);
  $("live-delay").textContent = `${Math.round(numbers.delay)} ms`;
  $("live-rate").textContent = numbers.rate.toFixed(1);
  $("live-dropped").textContent = numbers.dropped;
}

// --- the rest ----------------------------------------------------------------------------------------------------

function fail(error) {
  if (error.name === "AbortError") return;
  $("alert-text").textContent = error instanceof Failure ? error.message : `This page failed at it: ${error.message}`;
  $("alert").hidden = false;
  if ($("verdict").textContent.endsWith("…")) say("");
}

function hush() { $("alert").hidden = true; }

function setView(view) {
  document.querySelector(`input[name=view][value=${view}]`).checked = true;
  $("panes").dataset.view = view;
  for (const figure of figures.slice(1)) figure.hidden = view === "single";
  changed();
}

function setSlider(name, value) {
  $(name).value = value;
  document.querySelector(`output[for=${name}]`).textContent = `${value} %`;
  changed();
}

function chooseModel() {
  const { labels, terms, study } = models.find((model) => model.name === $("model").value);
  $("label").replaceChildren(...labels.map((name, number) => make("option", { value: number }, name)));
  $("label-field").hidden = labels.length < 2;
  $("terms").textContent = `Trained on ${study}. ${terms ? `Terms of that data: ${terms}` : ""}`;
  const other = $("other").value;
  const choices = models.filter((model) => model.name !== $("model").value).map(({ name }) => make("option", { value: name }, name));
  $("other").replaceChildren(make("option", { value: "" }, "no other"), ...choices);
  if (choices.some((choice) => choice.value === other)) $("other").value = other;
  if (live) leaveLive();
  changed();
}

const KEYS = {
  o: () => $("file").click(),
  " ": () => !$("clip").hidden && play(),
  ArrowLeft: () => file && !live && (pause(), go(frame - 1)),
  ArrowRight: () => file && !live && (pause(), go(frame + 1)),
  Home: () => file && !live && (pause(), go(0)),
  End: () => file && !live && (pause(), go(file.count - 1)),
  c: () => { $("contours").checked = !$("contours").checked; changed(); },
  b: () => !live && setSlider("border", Number($("border").value) ? 0 : 70),
  p: () => !live && setSlider("probability", Number($("probability").value) ? 0 : 70),
  v: () => !live && setView($("panes").dataset.view === "single" ? "channels" : "single"),
};

function wire() {
  const act = (id, does) => $(id).addEventListener("click", () => Promise.resolve(does()).catch(fail));
  act("open", () => $("file").click());
  act("example", () => open(null));
  act("play", play);
  act("previous", () => { pause(); go(frame - 1); });
  act("next", () => { pause(); go(frame + 1); });
  act("alert-close", hush);
  act("camera", () => startLive("camera"));
  act("screen", () => startLive("screen"));
  act("stop", leaveLive);
  act("live", () => {
    $("live-panel").hidden = !$("live-panel").hidden;
    $("live").setAttribute("aria-expanded", String(!$("live-panel").hidden));
    if (!$("live-panel").hidden) $("camera").focus();
  });
  for (const button of document.querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => {
      if (file) exported(button.dataset.export, file, frame, $("model").value, changed).catch(fail);
      else fail(new Failure("Open a file first."));
    });
  }
  $("file").addEventListener("change", () => { const [chosen] = $("file").files; $("file").value = ""; if (chosen) open(chosen); });
  $("scrub").addEventListener("input", () => { pause(); go(Number($("scrub").value)); });
  for (const kind of ["pointerdown", "pointermove"]) {
    $("curve").addEventListener(kind, (event) => {
      if (!event.buttons) return;
      $("curve").setPointerCapture(event.pointerId);
      pause();
      go(frameAt($("curve"), event.clientX, file.count));
    });
  }
  for (const name of ["border", "probability"]) $(name).addEventListener("input", () => setSlider(name, $(name).value));
  $("contours").addEventListener("change", changed);
  $("label").addEventListener("change", changed);
  $("model").addEventListener("change", chooseModel);
  $("other").addEventListener("change", changed);
  for (const radio of document.querySelectorAll("input[name=view]")) radio.addEventListener("change", () => setView(radio.value));
  for (const radio of document.querySelectorAll("input[name=curve]")) radio.addEventListener("change", changed);
  onKeys(KEYS);
  window.addEventListener("pagehide", (event) => { if (!event.persisted) file?.close(); });
  new ResizeObserver(changed).observe($("panes"));
  onDrop($("drop"), (files) => {
    if (files.length > 1) fail(new Failure("One file at a time, please."));
    else if (files.length) open(files[0]);
  });
}

onTokenNeeded(() => new Promise((done) => {
  const dialog = $("token-dialog");
  dialog.onclose = () => {
    sessionStorage.setItem("token", $("token").value.trim());
    done($("token").value.trim());
    $("token").value = "";
  };
  if (!dialog.open) dialog.showModal();
}));

wire();
try {
  ({ models } = await (await ask("/v1/models")).json());
  $("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
  chooseModel();
  await open(null);
} catch (error) {
  fail(error);
}
