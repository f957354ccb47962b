/** The buttons that publish, drop and stall. */

import { element, setText } from "./elements.js";
import { mayPublishTests } from "./question.js";

/** @typedef {"publish" | "flow" | "drop" | "stall"} Action */

/** Dispatches `publish` with a text, `flow`, `drop` with seconds, and `stall`. */
export class Controls extends EventTarget {
  #flow = element("flow", HTMLButtonElement);
  #stall = element("stall", HTMLButtonElement);
  #stallLabel = element("stall-label", HTMLElement);
  #drops = [element("drop-5", HTMLButtonElement), element("drop-30", HTMLButtonElement)];
  #text = element("text", HTMLInputElement);
  #live = false;
  #dropped = false;
  #failure = element("failure", HTMLElement);

  constructor() {
    super();
    element("note-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#dispatchIfAllowed("publish", this.#text.value);
    });
    this.#flow.addEventListener("click", () => this.#dispatchIfAllowed("flow"));
    this.#stall.addEventListener("click", () => this.#dispatchIfAllowed("stall"));
    for (const button of this.#drops) {
      button.addEventListener("click", () => this.#live && this.#dispatch("drop", Number(button.dataset.seconds)));
    }
  }

  /** @param {{status: string, flowing: boolean, stalled: boolean}} facts */
  show({ status, flowing, stalled }) {
    this.#live = status === "live";
    this.#dropped ||= flowing && status === "waiting";
    this.#flow.setAttribute("aria-pressed", String(flowing));
    this.#stall.setAttribute("aria-pressed", String(stalled));
    setText(this.#stallLabel, stalled ? "Read on" : "Stall reading");
    // They are not disabled, because a disabled button loses the focus.
    for (const button of this.#drops) button.setAttribute("aria-disabled", String(!this.#live));
    const suggests = this.#live && !stalled && !this.#dropped;
    this.#drops[0].classList.toggle("next", suggests && flowing);
  }

  /** Say why something did not work. @param {string} text */
  explain(text) {
    setText(this.#failure, text);
  }

  /** @param {string} type @param {unknown} [detail] */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {string} type @param {unknown} [detail] */
  async #dispatchIfAllowed(type, detail) {
    if (await mayPublishTests()) this.#dispatch(type, detail);
  }
}
