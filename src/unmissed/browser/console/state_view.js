/** The state line, the counters, and what screen readers announce. */

import { element, setText } from "./elements.js";
import { count, messages } from "./format.js";
import { countdown, stateWords } from "./words.js";

/** @typedef {import("./receiver.js").Receiver} Receiver */

const COUNTERS = /** @type {const} */ (["received", "recovered", "lost", "duplicates"]);

export class StateView {
  #root = element("state", HTMLElement);
  #title = element("state-title", HTMLElement);
  #text = element("state-text", HTMLElement);
  #countdown = element("countdown", HTMLElement);
  #missed = element("missed", HTMLElement);
  #lost = element("lost", HTMLElement);
  #check = element("check", HTMLElement);
  #announcement = element("announcement", HTMLElement);
  #pageTitle = document.title;

  /** @param {Receiver} receiver */
  show(receiver) {
    const { status, ledger, missed, retryAt, stream } = receiver;
    const [title, text] = stateWords(status, stream.transport);
    this.#root.dataset.status = status;
    setText(this.#title, title);
    setText(this.#text, text);
    setText(this.#countdown, stream.status === "waiting" ? countdown(retryAt, Date.now()) : "");
    setText(this.#missed, missed === undefined ? "unknown" : count(missed));
    for (const name of COUNTERS) showCounter(name, ledger[name]);
    this.#missed.parentElement?.classList.toggle("zero", missed === 0);
    this.#lost.classList.toggle("at-least", !ledger.exact);
    setText(this.#check, checkWords(ledger));
    this.#check.classList.toggle("bad", ledger.unannounced > 0 || ledger.duplicates > 0);
    document.title = `${title} · ${this.#pageTitle}`;
    document.documentElement.dataset.status = status;
  }

  /** Let screen readers announce this: they do not follow the list and the counters. @param {string} text */
  announce(text) {
    setText(this.#announcement, text);
  }
}

/** @param {string} id @param {number} value */
function showCounter(id, value) {
  const target = element(id, HTMLElement);
  setText(target, count(value));
  target.parentElement?.classList.toggle("zero", value === 0);
}

/** @param {import("./ledger.js").Ledger} ledger */
function checkWords({ received, compared, unannounced }) {
  if (unannounced > 0) return `${messages(unannounced)} of the log did not arrive`;
  if (received === 0) return "Compared by number with the server's log";
  return `${count(compared)} of ${messages(received)} compared by number with the server's log`;
}
