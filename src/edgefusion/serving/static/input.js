// Keys and dropped files.

/** Calls the action of a key, unless the control that has the focus uses that key itself. */
export function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const { target } = event;
    const own = target.matches("select, textarea, input:not([type=range]):not([type=checkbox]):not([type=radio])")
      || (target.matches("button, summary, input[type=checkbox]") && key === " ")
      || (target.matches("input[type=range], input[type=radio]") && key.length > 1);
    if (own || event.ctrlKey || event.metaKey || event.altKey || !(key in actions) || target.closest("dialog")) return;
    event.preventDefault();
    actions[key]();
  });
}

/** Calls `dropped` with the files that are dropped anywhere on the page; `sign` shows that they may be. */
export function onDrop(sign, dropped) {
  const over = (event, shown) => { event.preventDefault(); sign.hidden = !shown; };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(event, false); });
  document.addEventListener("drop", (event) => {
    over(event, false);
    dropped(event.dataTransfer.files);
  });
}
