/** Publishes numbered messages at a steady rate, over REST: like another client, it goes on while the stream is down. */

/** @typedef {import("./api.js").Api} Api */

const INTERVAL_MS = 100;
/** A timer of a hidden page runs once a second or less. What was not published meanwhile is not made up for. */
const MOST_AT_ONCE = 50;
/** The log must have room for a batch. */
const BATCH = 5;

/** Dispatches `published` with the stamps of a batch, and `failure` with an error. */
export class Traffic extends EventTarget {
  /** How many batches have no answer yet. */
  pending = 0;
  #api;
  #rate = 0;
  #bytes = 0;
  #counter = 0;
  #due = 0;
  #last = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /** @param {Api} api */
  constructor(api) {
    super();
    this.#api = api;
  }

  /**
   * Publish so many messages a second from now on, each with so many bytes of padding.
   * @param {number} rate @param {number} [bytes]
   */
  set(rate, bytes = 0) {
    this.#bytes = bytes;
    if (rate === this.#rate) return;
    clearInterval(this.#timer);
    [this.#rate, this.#due, this.#last] = [rate, 1, performance.now()];
    if (rate > 0) this.#timer = setInterval(() => this.#publishDue(), INTERVAL_MS);
  }

  #publishDue() {
    const now = performance.now();
    this.#due = Math.min(MOST_AT_ONCE, this.#due + ((now - this.#last) / 1000) * this.#rate);
    this.#last = now;
    const whole = Math.floor(this.#due);
    this.#due -= whole;
    for (let left = whole; left > 0; left -= BATCH) {
      this.#publish(Array.from({ length: Math.min(BATCH, left) }, () => this.#next()));
    }
  }

  #next() {
    const data = { n: ++this.#counter };
    return { type: "tick", data: this.#bytes ? { ...data, padding: "x".repeat(this.#bytes) } : data };
  }

  /** @param {import("./api.js").Draft[]} drafts */
  async #publish(drafts) {
    this.pending++;
    try {
      const stamps = await this.#api.publish(drafts);
      this.dispatchEvent(new CustomEvent("published", { detail: stamps }));
    } catch (error) {
      this.dispatchEvent(new CustomEvent("failure", { detail: error }));
    } finally {
      this.pending--;
    }
  }
}
