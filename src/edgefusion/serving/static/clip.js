// A file that is open on the server: its pictures, fetched when they are needed, and what networks said about it.

import { ask, lines } from "./api.js";
import { tinted } from "./view.js";

const KEPT = 90; // Decoded pictures; of a frame of 580×420 one takes 1 MB.

export class OpenFile {
  constructor(about, name) {
    Object.assign(this, { about, name });
    this.count = about.count ?? 1;
    this.complete = about.count !== null;
    this.note = "";
    this.runs = new Map();
    this.pictures = new Map();
    this.gone = new AbortController();
  }

  /** What a network says about every frame: starts to fetch it where that has not begun. */
  run(model, changed) {
    if (!this.runs.has(model)) {
      const run = { head: null, results: [], error: null };
      this.runs.set(model, run);
      this.#fetch(model, run, changed).catch((error) => {
        if (error.name === "AbortError") return;
        run.error = error.message;
        changed();
      });
    }
    return this.runs.get(model);
  }

  async #fetch(model, run, changed) {
    const address = `/v1/sessions/${this.about.id}/results?model=${encodeURIComponent(model)}`;
    for await (const part of lines(await ask(address, { signal: this.gone.signal }))) {
      if (part.error) run.error = part.error;
      else if (part.end) {
        this.count = part.end.count;
        this.note = part.end.note;
        this.complete = true;
      } else if (part.notice) run.head = part;
      else {
        run.results[part.index] = part;
        this.count = Math.max(this.count, part.index + 1);
      }
      changed();
    }
  }

  address(frame, layer, model, label = 0) {
    return `/v1/sessions/${this.about.id}/frames/${frame}/${layer}?model=${encodeURIComponent(model)}&label=${label}`;
  }

  /** A picture of a frame, decoded; layers of probability come tinted. */
  picture(frame, layer, model, label = 0) {
    const network = layer === "probability" || layer === "border";
    const key = network ? `${frame} ${layer} ${model} ${label}` : `${frame} ${layer}`;
    const known = this.pictures.get(key);
    this.pictures.delete(key);
    const picture = known ?? this.#picture(this.address(frame, layer, model, label), network && layer);
    this.pictures.set(key, picture);
    picture.catch(() => this.pictures.delete(key));
    if (this.pictures.size > KEPT) {
      const [oldest, old] = this.pictures.entries().next().value;
      this.pictures.delete(oldest);
      old.then((bitmap) => bitmap.close(), () => {});
    }
    return picture;
  }

  async #picture(address, tint) {
    const blob = await (await ask(address, { signal: this.gone.signal })).blob();
    return tint ? tinted(blob, tint) : createImageBitmap(blob);
  }

  close() {
    this.gone.abort();
    ask(`/v1/sessions/${this.about.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }
}
