/** What the server says about its log and its connections, asked again and again while the page is visible. */

import { Refused } from "./api.js";

/** @typedef {import("./api.js").Connection} Connection */
/** @typedef {{messages: number, bytes: number, reach_seconds: number, max_messages: number, max_bytes: number, max_age: number}} Log */

export const SAMPLES = 60;
const PAGE_SIZE = 10;
const RATE_SECONDS = 10;

export class Server {
  /** @type {Log | null} */
  log = null;
  /** @type {Connection[]} */
  connections = [];
  /** Why there is no information, if the token does not grant it. */
  refusal = "";
  hasNext = false;

  #api;
  /** The values of `after` of this page and of those before it. */
  #pages = [""];
  /** @type {string | null} */
  #next = null;
  /** @type {Map<string, number[]>} */
  #lags = new Map();
  /** @type {{at: number, latest: number, epoch: string}[]} */
  #latest = [];

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  /** Ask for everything, unless the token does not grant it. */
  async poll() {
    if (this.refusal) return;
    try {
      const [status, page] = await Promise.all([this.#api.status(), this.#connections()]);
      this.log = status.log;
      this.#latest.push({ at: Date.now() / 1000, latest: status.latest, epoch: status.epoch });
      this.#take(page);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 403) throw error;
      this.refusal = error.message;
    }
  }

  /** Messages a second that the server has numbered, for whomever they are, over the last seconds. */
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

  /** The last lags of a connection, oldest first. @param {string} id */
  lags(id) {
    return this.#lags.get(id) ?? [];
  }

  get hasPrevious() {
    return this.#pages.length > 1;
  }

  nextPage() {
    if (this.#next !== null) this.#pages.push(this.#next);
  }

  previousPage() {
    if (this.hasPrevious) this.#pages.pop();
  }

  #connections() {
    return this.#api.connections({ after: /** @type {string} */ (this.#pages.at(-1)), limit: PAGE_SIZE });
  }

  /** @param {{connections: Connection[], next: string | null}} page */
  #take({ connections, next }) {
    this.connections = connections;
    this.#next = next;
    this.hasNext = next !== null;
    const before = this.#lags;
    this.#lags = new Map(
      connections.map(({ connection_id: id, lag }) => [id, [...(before.get(id) ?? []), lag].slice(-SAMPLES)]),
    );
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
