/**
 * The requests of an application: they wait for a connection, are sent at the rate that the server accepts, and are
 * repeated with the same ids after a reconnect until they are answered.
 *
 * @import { Frame } from "../types.js"
 * @import { Link } from "./link.js"
 */

import { CLOSED, RESTARTING, TIMED_OUT, TOO_LARGE, TOO_MANY, UNAVAILABLE, failure } from "./failures.js";
import { Timer } from "./timer.js";

const MOST_UNANSWERED = 16;
const MOST_BYTES = 65_536;
/** Milliseconds between two requests, at first and at most. It doubles when the server finds them too many. */
const INTERVAL = 100;
const LONGEST_INTERVAL = 1600;
/** How much of the budget may be used at once. */
const BURST_TIME = 1600;
/** Before requests that the server has postponed are repeated: at least a second, and a random one. */
const POSTPONED_TIME = 1000;

const POSTPONING = [RESTARTING, UNAVAILABLE, TOO_MANY];

/**
 * A request that is not answered. `sent` on the present connection, and first at the time `since`.
 *
 * @typedef {{
 *   frame: Frame,
 *   resolve: (result: any) => void,
 *   reject: (error: Error) => void,
 *   sent?: boolean,
 *   since?: number,
 * }} Pending
 */

// Not randomUUID, which is missing on pages without HTTPS.
const newId = () => crypto.getRandomValues(new Uint32Array(4)).join();

export class Requests {
  /** @type {Map<string, Pending>} */
  #pending = new Map();
  #limit;
  /** @type {Link | undefined} */
  #link;
  #interval = INTERVAL;
  /** When the whole budget may be used again. */
  #budgetFull = 0;
  #timer = new Timer();
  #closed = false;

  /** @param {number} limit The most that may be unanswered. */
  constructor(limit) {
    this.#limit = limit;
  }

  /**
   * Returns a promise of the answer. It is rejected with an error that has a close code.
   *
   * @param {Frame} frame
   * @returns {Promise<any>}
   */
  add(frame) {
    return new Promise((resolve, reject) => {
      const id = newId();
      const text = JSON.stringify({ ...frame, id });
      if (this.#closed) throw failure(CLOSED, "the stream is closed");
      if (this.#pending.size >= this.#limit) throw failure(TOO_MANY, "too many requests: raise limit");
      if (new Blob([text]).size > MOST_BYTES) throw failure(TOO_LARGE, "a request has at most 64 kB");
      // A copy: the application may change its object.
      this.#pending.set(id, { frame: JSON.parse(text), resolve, reject });
      this.#sendWaiting();
    });
  }

  /**
   * Sends a request of another tab, which takes its answer from the shared frames.
   *
   * @param {Frame} frame
   */
  adopt(frame) {
    if (this.#pending.has(frame.id)) return;
    this.#pending.set(frame.id, { frame, resolve() {}, reject() {} });
    this.#sendWaiting();
  }

  /**
   * Repeats what has no answer, except what the server may have executed and forgotten.
   *
   * @param {Link} link
   * @param {number} maxAge How many seconds it remembers answers.
   */
  repeat(link, maxAge) {
    this.#link = link;
    for (const [id, request] of this.#pending) {
      request.sent = false;
      if (link.connected - Number(request.since) > 1000 * maxAge) {
        this.#pending.delete(id);
        request.reject(failure(TIMED_OUT, "it may have been done"));
      }
    }
    this.#sendWaiting();
  }

  /** @param {Frame} frame Any: it settles a request if it has its id. */
  settle({ id, type, code, detail, data, topics, sequence_number }) {
    const request = this.#pending.get(id);
    if (!request) return;
    if (code === TOO_MANY) this.slowDown();
    if (POSTPONING.includes(code)) {
      request.sent = false;
      this.#budgetFull = performance.now() + BURST_TIME + POSTPONED_TIME * (1 + Math.random());
    } else {
      this.#pending.delete(id);
      if (type === "error") request.reject(failure(code, detail));
      else request.resolve(data === undefined ? (topics ?? sequence_number) : data);
    }
    this.#sendWaiting();
  }

  slowDown() {
    this.#interval = Math.min(LONGEST_INTERVAL, 2 * this.#interval);
    this.#budgetFull = performance.now() + BURST_TIME;
  }

  close() {
    this.#closed = true;
    for (const { reject } of this.#pending.values()) reject(failure(CLOSED, "the stream is closed"));
    this.#pending.clear();
  }

  #sendWaiting() {
    const all = [...this.#pending.values()];
    const waiting = all.filter(({ sent }) => !sent);
    this.#timer.stop();
    for (const request of waiting.slice(0, MOST_UNANSWERED - all.length + waiting.length)) {
      const link = this.#link;
      if (!link?.connected || link.signal.aborted) return;
      const early = this.#budgetFull - performance.now() - BURST_TIME;
      if (early > 0) {
        this.#timer.start(early, () => this.#sendWaiting());
        return;
      }
      this.#budgetFull = Math.max(this.#budgetFull, performance.now()) + this.#interval;
      request.sent = true;
      request.since ??= Date.now();
      link.send?.(request.frame);
    }
  }
}
