// Files to take away: of one frame its mask and overlay, of all frames JSON and a DICOM Segmentation.

import { ask, Failure, save } from "./api.js";

/** Offers one of mask, overlay, json and seg of an open file. */
export async function exported(kind, file, frame, model, changed) {
  if (kind === "json") {
    const run = file.run(model, changed);
    if (!run.head) throw new Failure("Nothing is read yet.");
    const answer = { ...run.head, complete: file.complete && run.results.length === file.count, frames: run.results };
    save(new Blob([JSON.stringify(answer)], { type: "application/json" }), "edgefusion.json");
    return;
  }
  const address = kind === "seg"
    ? `/v1/sessions/${file.about.id}/segmentation?model=${encodeURIComponent(model)}`
    : file.address(frame, kind, model);
  const number = String(frame + 1).padStart(4, "0");
  save(await (await ask(address)).blob(), kind === "seg" ? "edgefusion-seg.dcm" : `edgefusion-${number}-${kind}.png`);
}
