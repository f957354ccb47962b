/** The buttons that publish, drop and stall. */

import { element, setText } from "./elements.js";

/** @typedef {"publish" | "flow" | "drop" | "stall"} Action */

const LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"];

/** Dispatches `publish` with a text, `flow`, `drop` with seconds, and `stall`. */
export class Controls extends EventTarget {
  #flow = element("flow", HTMLButtonElement);
  #stall = element("stall", HTMLButtonElement);
  #stallLabel = element("stall-label", HTMLElement);
  #drops = [element("drop-5", HTMLButtonElement), element("drop-30", HTMLButtonElement)];
  #text = element("text", HTMLInputElement);
  #confirm = element("confirm", HTMLDialogElement);
  #confirmed = LOCAL_HOSTS.includes(location.hostname);
  #live = false;
  #dropped = false;
  #failure = element("failure", HTMLElement);

  constructor() {
    super();
    element("publish-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#tellIfConfirmed("publish", this.#text.value);
    });
    this.#flow.addEventListener("click", () => this.#tellIfConfirmed("flow"));
    this.#stall.addEventListener("click", () => this.#tellIfConfirmed("stall"));
    for (const button of this.#drops) {
      button.addEventListener("click", () => this.#live && this.#tell("drop", Number(button.dataset.seconds)));
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
    this.#flow.classList.toggle("next", suggests && !flowing);
    this.#drops[0].classList.toggle("next", suggests && flowing);
  }

  /** Say why something did not work. @param {string} text */
  explain(text) {
    setText(this.#failure, text);
  }

  /** @param {string} type @param {unknown} [detail] */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Ask once before test messages go through a log that others may use. @param {string} type @param {unknown} [detail] */
  #tellIfConfirmed(type, detail) {
    if (this.#confirmed) return this.#tell(type, detail);
    this.#confirm.returnValue = "";
    this.#confirm.showModal();
    this.#confirm.addEventListener(
      "close",
      () => {
        this.#confirmed = this.#confirm.returnValue === "publish";
        if (this.#confirmed) this.#tell(type, detail);
      },
      { once: true },
    );
  }
}
