/** Messages counted by the second in which they were published. */

/** @typedef {"live" | "recovered" | "lost"} Fate */
/** @typedef {Record<Fate | "missed", number>} Second */

const KEPT_SECONDS = 120;

export class Seconds {
  /** @type {Map<number, Second>} */
  #seconds = new Map();
  /** Milliseconds by which the server's clock is ahead of this browser's. */
  #ahead = 0;

  /**
   * Count messages that were published at this time.
   * @param {string} timestamp
   * @param {Fate} fate
   */
  add(timestamp, fate) {
    if (fate === "live") this.#ahead = Date.parse(timestamp) - Date.now();
    this.#at(secondOf(timestamp))[fate]++;
  }

  /**
   * Return the last `length` seconds, oldest first, each with its number. The current second is incomplete.
   * @param {number} length
   * @param {Iterable<[string, "missed" | "lost"]>} missing timestamps of messages that have not arrived
   * @returns {[number, Second][]}
   */
  last(length, missing) {
    const end = Math.floor((Date.now() + this.#ahead) / 1000);
    this.#forget(end - KEPT_SECONDS);
    const numbers = Array.from({ length }, (_, index) => end - length + 1 + index);
    const seconds = new Map(numbers.map((number) => [number, { ...nothing(), ...this.#seconds.get(number) }]));
    for (const [timestamp, fate] of missing) {
      const second = seconds.get(secondOf(timestamp));
      if (second) second[fate]++;
    }
    return [...seconds];
  }

  /** @param {number} second */
  #at(second) {
    const found = this.#seconds.get(second) ?? nothing();
    this.#seconds.set(second, found);
    return found;
  }

  /** @param {number} before */
  #forget(before) {
    for (const second of this.#seconds.keys()) if (second < before) this.#seconds.delete(second);
  }
}

/** @returns {Second} */
function nothing() {
  return { live: 0, recovered: 0, missed: 0, lost: 0 };
}

/** @param {string} timestamp */
function secondOf(timestamp) {
  return Math.floor(Date.parse(timestamp) / 1000);
}

/** All messages of a second. @param {Second} second */
export function sum({ live, recovered, missed, lost }) {
  return live + recovered + missed + lost;
}
