// Talking to the server: the token, waiting where it is busy, and failures in words.

let askForToken = async () => null;

/** Sets what asks a person for the token; it gives the token, or null. */
export function onTokenNeeded(ask) { askForToken = ask; }

/** The token of this tab, or "". */
export const token = () => sessionStorage.getItem("token") || "";

/** A failure with a sentence for a person. */
export class Failure extends Error {}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

/** A response that is fine; everything else becomes a Failure. A busy server is asked again, a few times. */
export async function ask(path, options = {}) {
  for (let attempt = 0; ; attempt += 1) {
    const headers = { ...options.headers };
    if (token()) headers.Authorization = `Bearer ${token()}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("The server does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401 && await askForToken()) continue;
    if (response.status === 503 && attempt < 4) {
      await pause(Number(response.headers.get("Retry-After")) || 1);
      continue;
    }
    let message = `The server answered ${response.status}.`;
    try { message = (await response.json()).error.message; } catch { /* not ours */ }
    throw new Failure(message);
  }
}

/** Objects of a response of one JSON object a line, as they arrive. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

/** Offers a blob to be kept as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
