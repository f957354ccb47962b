/** The panel with the code for what was just done. */

import { element, setText } from "./elements.js";
import { snippet } from "./snippets.js";

/** @typedef {import("./snippets.js").Language} Language */
/** @typedef {import("./snippets.js").Facts} Facts */

const COPIED_MS = 1_500;

export class CodeView {
  #tabs = [...document.querySelectorAll("[role=tab]")].filter((each) => each instanceof HTMLButtonElement);
  #title = element("code-title", HTMLElement);
  #panel = element("code", HTMLElement);
  /** @type {Language} */
  #language = "curl";
  #action = "publish";
  /** @type {Facts} */
  #facts;

  /** @param {Facts} facts @param {string} token */
  constructor(facts, token) {
    this.#facts = facts;
    this.#tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => this.#choose(tab));
      tab.addEventListener("keydown", (event) => this.#move(event, index));
    });
    copyOnClick("copy-code", () => this.#panel.textContent ?? "");
    copyOnClick("copy-token", () => `export UNMISSED_URL=${facts.base} UNMISSED_TOKEN=${token}`);
    this.#show();
  }

  /** Show the code for an action. @param {string} action @param {Partial<Facts>} facts */
  show(action, facts) {
    this.#action = action;
    this.#facts = { ...this.#facts, ...facts };
    this.#show();
  }

  /** @param {HTMLButtonElement} chosen */
  #choose(chosen) {
    this.#language = /** @type {Language} */ (chosen.dataset.language);
    for (const tab of this.#tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
    this.#panel.setAttribute("aria-labelledby", chosen.id);
    this.#show();
  }

  /** @param {KeyboardEvent} event @param {number} index */
  #move(event, index) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const tab = this.#tabs[(index + step + this.#tabs.length) % this.#tabs.length];
    tab.focus();
    this.#choose(tab);
  }

  #show() {
    const { title, code } = snippet(this.#action, this.#language, this.#facts);
    setText(this.#title, title);
    setText(this.#panel, code);
  }
}

/** @param {string} id @param {() => string} text */
function copyOnClick(id, text) {
  const button = element(id, HTMLButtonElement);
  // Only pages that came over HTTPS or from this machine may use the clipboard.
  button.hidden = !navigator.clipboard;
  const label = button.textContent ?? "";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    setText(button, "Copied");
    setTimeout(() => setText(button, label), COPIED_MS);
  });
}
