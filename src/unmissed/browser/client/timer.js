/** A timeout without the limit of browsers, in which a longer one ends at once. */

/** The longest time of `setTimeout` in milliseconds: 24.8 days. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;

/** Runs one action after a time. Another start replaces the one before. */
export class Timer {
  /** @type {any} Browsers have numbers, and Node.js objects. */
  #timeout;

  /**
   * @param {number} milliseconds
   * @param {() => void} action
   */
  start(milliseconds, action) {
    this.stop();
    const part = Math.min(milliseconds, LONGEST_TIMEOUT);
    this.#timeout = setTimeout(() => {
      if (milliseconds > part) this.start(milliseconds - part, action);
      else action();
    }, part);
  }

  stop() {
    clearTimeout(this.#timeout);
  }
}
