/** Keyboard shortcuts: single keys that press the button with the same `data-key`. They can be turned off. */

import { element } from "./elements.js";

const KEY = "unmissed.console.shortcuts";

/** Listen for keys. */
export function listenForShortcuts() {
  const enabled = element("shortcuts", HTMLInputElement);
  enabled.checked = localStorage.getItem(KEY) !== "off";
  const show = () => document.documentElement.classList.toggle("no-shortcuts", !enabled.checked);
  show();
  enabled.addEventListener("change", () => {
    localStorage.setItem(KEY, enabled.checked ? "on" : "off");
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (enabled.checked && isPlain(event)) press(event);
  });
}

/** @param {KeyboardEvent} event */
function isPlain(event) {
  const typing =
    event.target instanceof HTMLElement && event.target.matches("input:not([type=checkbox]), textarea, select");
  const inDialog = document.querySelector("dialog[open]") !== null;
  return !typing && !inDialog && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat;
}

/** @param {KeyboardEvent} event */
function press(event) {
  const button = document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!(button instanceof HTMLButtonElement) || button.offsetParent === null) return;
  event.preventDefault();
  button.click();
}
