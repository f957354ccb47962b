/** Figures of the server: asked for again and again while they are shown, and marked as stale if no answer comes. */

import { Refused } from "./api.js";
import { setText } from "./elements.js";
import { clock, sentence } from "./format.js";

const EVERY_MS = 2_000;
/** An answer that takes longer leaves the figures stale, before the request has failed. */
const LATE_MS = 5_000;
const UNAUTHORIZED = 401;
const FORBIDDEN = 403;

/** @typedef {"waiting" | "fresh" | "stale" | "refused"} Freshness */

/** @template T */
export class Feed {
  #root;
  #ask;
  #show;
  #running = false;
  /** Answers may overtake each other, for example after a change of a filter: only the last question counts. */
  #asked = 0;
  /** @type {number | undefined} */
  #answeredAt;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #next;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #late;

  /**
   * @param {HTMLElement} root what is marked; it has elements of the classes `as-of`, `refusal` and `figures`
   * @param {{ask: () => Promise<T>, show: (answer: T) => void}} functions
   */
  constructor(root, { ask, show }) {
    this.#root = root;
    this.#ask = ask;
    this.#show = show;
    this.#mark("waiting", "");
    document.addEventListener("visibilitychange", () => this.#running && this.refresh());
  }

  start() {
    this.#running = true;
    this.refresh();
  }

  stop() {
    this.#running = false;
    this.#asked++;
    clearTimeout(this.#next);
    clearTimeout(this.#late);
  }

  /** Ask now. A hidden page does not ask. */
  async refresh() {
    clearTimeout(this.#next);
    if (!this.#running || document.hidden) return;
    const number = ++this.#asked;
    this.#late ??= setTimeout(() => this.#stale("the server does not answer"), LATE_MS);
    const { answer, error } = await this.#answer();
    if (number !== this.#asked) return;
    if (error !== undefined) this.#failed(error);
    else this.#took(/** @type {T} */ (answer));
  }

  /** @returns {Promise<{answer?: T, error?: unknown}>} */
  async #answer() {
    try {
      return { answer: await this.#ask() };
    } catch (error) {
      return { error };
    }
  }

  /** @param {T} answer */
  #took(answer) {
    this.#answered();
    this.#answeredAt = Date.now();
    this.#mark("fresh", "");
    this.#show(answer);
  }

  /** @param {unknown} error */
  #failed(error) {
    if (error instanceof Refused && error.status === FORBIDDEN) {
      clearTimeout(this.#late);
      setText(this.#part("refusal"), `${sentence(error.message)} Change the token to see this.`);
      return this.#mark("refused", "");
    }
    this.#answered();
    this.#stale(error instanceof Error ? error.message : String(error));
    // The page asks for another token, and another request with this one would be refused, too.
    if (error instanceof Refused && error.status === UNAUTHORIZED) clearTimeout(this.#next);
  }

  #answered() {
    clearTimeout(this.#late);
    this.#late = undefined;
    this.#next = setTimeout(() => this.refresh(), EVERY_MS);
  }

  /** @param {string} why */
  #stale(why) {
    const since = this.#answeredAt === undefined ? "No figures" : `As of ${clock(this.#answeredAt)}`;
    this.#mark("stale", `${since}: ${why}`);
  }

  /** @param {Freshness} freshness @param {string} asOf */
  #mark(freshness, asOf) {
    this.#root.dataset.freshness = freshness;
    this.#part("figures").hidden = this.#answeredAt === undefined || freshness === "refused";
    this.#part("refusal").hidden = freshness !== "refused";
    setText(this.#part("as-of"), asOf);
  }

  /** @param {string} name @returns {HTMLElement} */
  #part(name) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`.${name}`));
  }
}
