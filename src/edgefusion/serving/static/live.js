// The live view: frames of a camera or a screen go to the server, contours come back and are drawn on their own frame.

import { Failure, token } from "./api.js";

const LONGEST = 800; // Pixels of the longer side that are sent: the network sees fewer still.
const INTERVAL = 40;

export class Live {
  /** `show(bitmap, answer, figures)` for every answer, `ended(words)` once. */
  constructor(show, ended) {
    Object.assign(this, { show, ended, pending: new Map(), number: 0, skipped: 0, delays: [] });
  }

  async start(kind, model) {
    if (!navigator.mediaDevices) {
      throw new Failure("The browser gives a camera only to pages of this machine or over HTTPS.");
    }
    const video = { width: { ideal: 1280 }, facingMode: "environment" };
    try {
      this.stream = kind === "screen"
        ? await navigator.mediaDevices.getDisplayMedia({ video: true, audio: false })
        : await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      const reasons = { NotAllowedError: "The browser was not allowed to.", NotFoundError: "There is no camera." };
      throw new Failure(`No picture. ${reasons[error.name] ?? error.message}`);
    }
    this.video = Object.assign(document.createElement("video"), { srcObject: this.stream, muted: true, playsInline: true });
    this.stream.getVideoTracks()[0].addEventListener("ended", () => this.stop("The source has ended."));
    await this.video.play();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/v1/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.socket.send(JSON.stringify({ token: token(), model }));
    this.socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    this.socket.onclose = () => this.stop("The live view has ended.");
  }

  #receive(answer) {
    if (answer.ready) {
      this.timer = setInterval(() => this.#send(), INTERVAL);
      return;
    }
    if (answer.number === undefined) {
      this.stop(answer.error);
      return;
    }
    const sent = this.pending.get(answer.number);
    for (const [number, { bitmap }] of this.pending) {
      if (number > answer.number) break;
      this.pending.delete(number);
      if (number < answer.number) bitmap.close();
    }
    if (!sent) return;
    const now = performance.now();
    this.delays = [...this.delays.filter((past) => now - past < 2000), now];
    const figures = { delay: now - sent.time, rate: this.delays.length / 2, dropped: answer.dropped + this.skipped };
    this.show(sent.bitmap, answer, figures);
  }

  async #send() {
    if (this.busy || !this.video.videoWidth || this.socket.readyState !== WebSocket.OPEN) return;
    // What has not even left this machine would be old on arrival.
    if (this.socket.bufferedAmount > 0) { this.skipped += 1; return; }
    this.busy = true;
    const scale = Math.min(1, LONGEST / Math.max(this.video.videoWidth, this.video.videoHeight));
    const canvas = new OffscreenCanvas(Math.round(scale * this.video.videoWidth), Math.round(scale * this.video.videoHeight));
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    const time = performance.now();
    const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
    this.number = (this.number + 1) % 2 ** 32;
    const head = new DataView(new ArrayBuffer(4));
    head.setUint32(0, this.number);
    const message = await new Blob([head, jpeg]).arrayBuffer();
    this.busy = false;
    if (this.stopped || this.socket.readyState !== WebSocket.OPEN) return;
    this.pending.set(this.number, { time, bitmap: canvas.transferToImageBitmap() });
    this.socket.send(message);
  }

  stop(words = "") {
    if (this.stopped) return;
    this.stopped = true;
    clearInterval(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.socket?.close();
    for (const { bitmap } of this.pending.values()) bitmap.close();
    this.pending.clear();
    this.ended(words);
  }
}
