/** A dialog with everything about one thing: a connection, a message, or an event. */

import { create, element, setText, visible } from "./elements.js";

/** @typedef {{label: string, run: () => Promise<boolean>, danger?: boolean}} Action `run` returns whether it was done */
/** @typedef {[label: string, value: string | Node]} Fact */
/** @typedef {{title: string | Node, facts: Fact[], json?: unknown, actions?: Action[]}} Content */

const COPIED_MS = 1_500;

export class Inspector {
  #dialog = element("inspector", HTMLDialogElement);
  #facts = element("inspector-facts", HTMLElement);
  #code = element("inspector-code", HTMLElement);
  #copy = element("inspector-copy", HTMLButtonElement);
  #failure = element("inspector-failure", HTMLElement);

  constructor() {
    element("inspector-close", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    this.#copy.addEventListener("click", () => this.#copyCode());
    // A click beside the dialog is one on the dialog itself, which its content covers.
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  /** @param {Content} content */
  show({ title, facts, json, actions = [] }) {
    element("inspector-title", HTMLElement).replaceChildren(title);
    this.#facts.replaceChildren(...facts.map(factElement));
    element("inspector-json", HTMLElement).hidden = json === undefined;
    setText(this.#code, json === undefined ? "" : visible(JSON.stringify(json, null, 2)));
    // Only pages that came over HTTPS or from this machine may use the clipboard.
    this.#copy.hidden = !navigator.clipboard;
    setText(this.#failure, "");
    element("inspector-actions", HTMLElement).replaceChildren(...actions.map((action) => this.#button(action)));
    this.#dialog.showModal();
    this.#dialog.scrollTop = 0;
  }

  /** @param {Action} action */
  #button({ label, run, danger }) {
    const button = create("button", danger ? "danger" : "", label);
    button.type = "button";
    button.addEventListener("click", async () => {
      setText(this.#failure, "");
      try {
        if (await run()) this.#dialog.close();
      } catch (error) {
        setText(this.#failure, `This failed: ${error instanceof Error ? error.message : error}`);
      }
    });
    return button;
  }

  async #copyCode() {
    await navigator.clipboard.writeText(this.#code.textContent ?? "");
    const label = "Copy JSON";
    setText(this.#copy, "Copied");
    setTimeout(() => setText(this.#copy, label), COPIED_MS);
  }
}

/** Return the element of a fact in a list of facts. @param {Fact} fact */
export function factElement([label, value]) {
  return create("div", "", create("dt", "", label), create("dd", "", value));
}
