/** How full the log is, how fast it is filled, and how far back it reaches. */

/** @typedef {import("./api.js").Status} Status */
/** @typedef {Status["log"]} Log */

const RATE_SECONDS = 10;

export class LogFigures {
  /** @type {Log | null} */
  log = null;
  /** @type {{at: number, latest: number, epoch: string}[]} */
  #latest = [];

  /** @param {Status} status */
  take({ log, latest, epoch }) {
    this.log = log;
    this.#latest.push({ at: Date.now() / 1000, latest, epoch });
  }

  /** Messages a second that the server has numbered, for any user, over the last seconds. */
  get rate() {
    const newest = this.#latest.at(-1);
    if (!newest) return 0;
    this.#latest = this.#latest.filter((each) => each.at >= newest.at - RATE_SECONDS && each.epoch === newest.epoch);
    const seconds = newest.at - this.#latest[0].at;
    return seconds > 0 ? (newest.latest - this.#latest[0].latest) / seconds : 0;
  }

  /** Seconds that the log reaches back if messages go on at this rate. */
  get reach() {
    return this.log ? reach(this.log, this.rate) : 0;
  }
}

/**
 * Return the seconds after which a message is evicted: by age, by number or by bytes, whichever comes first.
 * @param {Log} log @param {number} rate messages a second
 */
export function reach(log, rate) {
  const size = log.messages > 0 ? log.bytes / log.messages : 0;
  return Math.min(log.max_age, log.max_messages / rate, log.max_bytes / (rate * size));
}
