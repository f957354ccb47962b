/**
 * The requests of an application: they wait for a connection, are sent at the rate that the server announces, and are
 * repeated with the same ids after a reconnect until they are answered.
 *
 * @import { Frame } from "../types.js"
 * @import { Link } from "./link.js"
 * @import { Settings } from "./settings.js"
 */

import { LOST, POSTPONING, TIMED_OUT, TOO_LARGE, TOO_MANY, failure } from "./failures.js";
import { createTimer } from "./timer.js";

const MOST_BYTES = 65_536;
/** What a server accepts before it says so: requests a second, and at once. */
const RATE = 10;
const BURST = 20;
/** The part of the burst that is used: other tabs and programs of the user send requests, too. */
const USED_PART = 0.8;
/** How much slower than the server's rate the requests may become. They slow down when it finds them too many. */
const MOST_SLOWNESS = 16;
/** Without an answer for this time, the connection is tested. */
const ANSWER_TIME = 5000;
/** Before requests that the server has postponed are repeated: at least a second, and a random one. */
const POSTPONED_TIME = 1000;

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

/** @param {Settings} settings */
export const createRequests = ({ limit, log }) => {
  /** @type {Map<string, Pending>} */
  const pending = new Map();
  const budgetTimer = createTimer();
  const answerTimer = createTimer();
  /** @type {Link | undefined} */
  let link;
  let slowness = 1;
  /** When the whole budget may be used again. */
  let budgetFull = 0;
  /** @type {Error | undefined} Why no more requests are sent. */
  let end;

  const isOpen = () => link && !link.signal.aborted;

  /** Milliseconds between two requests. */
  const interval = () => (slowness * 1000) / (link?.greeting.rate ?? RATE);

  /** The most that may be sent at once, and be unanswered. */
  const burst = () => Math.max(1, Math.floor(USED_PART * (link?.greeting.burst ?? BURST)));

  /** @param {number} milliseconds Until the next request may be sent. */
  const useBudgetUp = (milliseconds) => {
    budgetFull = performance.now() + burst() * interval() + milliseconds;
  };

  const requests = {
    /**
     * Returns a promise of the answer. It is rejected with an error that has a close code.
     *
     * @param {Frame} content
     * @returns {Promise<any>}
     */
    add: (content) =>
      new Promise((resolve, reject) => {
        const id = newId();
        const text = JSON.stringify({ ...content, id });
        if (end) throw end;
        if (content.message?.ephemeral && !isOpen()) throw failure(LOST, "not connected");
        if (pending.size >= limit) throw failure(TOO_MANY, "raise limit");
        if (new Blob([text]).size > MOST_BYTES) throw failure(TOO_LARGE, "over 64 kB");
        // A copy: the application may change its object.
        pending.set(id, { frame: JSON.parse(text), resolve, reject });
        sendWaiting();
      }),

    /**
     * Sends a request of another tab, which takes its answer from the shared frames.
     *
     * @param {Frame} frame
     */
    adoptFrame(frame) {
      if (pending.has(frame.id)) return;
      pending.set(frame.id, { frame, resolve() {}, reject() {} });
      sendWaiting();
    },

    /**
     * Repeats what has no answer, except what is ephemeral, or what the server may have executed and forgotten.
     *
     * @param {Link} connected
     * @param {number} maxAge How many seconds it remembers answers.
     */
    repeatOn(connected, maxAge) {
      link = connected;
      for (const [id, request] of pending) {
        request.sent = false;
        const isOld = link.connectedAt - /** @type {number} */ (request.since) > 1000 * maxAge;
        if (isOld || request.frame.message?.ephemeral) {
          pending.delete(id);
          request.reject(failure(TIMED_OUT, "it may have been done"));
        }
      }
      sendWaiting();
    },

    /** @param {Frame} frame Any: it settles a request if it has its id. */
    settle({ id, type, code, detail, data, topics, sequence_number }) {
      const request = pending.get(id);
      if (!request) return;
      if (code === TOO_MANY) requests.slowDown();
      if (POSTPONING.includes(code)) {
        request.sent = false;
        useBudgetUp(POSTPONED_TIME * (1 + Math.random()));
      } else {
        pending.delete(id);
        if (type === "error") request.reject(failure(code, detail));
        else request.resolve(data === undefined ? (topics ?? sequence_number) : data);
      }
      expectAnswer();
      sendWaiting();
    },

    slowDown() {
      slowness = Math.min(MOST_SLOWNESS, 2 * slowness);
      useBudgetUp(0);
    },

    /** @param {Error} error Why: all that wait are rejected with it. */
    close(error) {
      end = error;
      for (const { reject } of pending.values()) reject(error);
      pending.clear();
      budgetTimer.halt();
      answerTimer.halt();
    },
  };

  const sendWaiting = () => {
    const waiting = [...pending.values()].filter(({ sent }) => !sent);
    const unanswered = pending.size - waiting.length;
    budgetTimer.halt();
    for (const request of waiting.slice(0, burst() - unanswered)) {
      if (!isOpen()) return;
      const early = budgetFull - burst() * interval() - performance.now();
      if (early > 0) {
        budgetTimer.start(early, sendWaiting);
        return;
      }
      budgetFull = Math.max(budgetFull, performance.now()) + interval();
      request.sent = true;
      request.since ??= Date.now();
      log("sends", request.frame);
      link?.send?.(request.frame);
      if (unanswered === 0) expectAnswer();
    }
  };

  /** Tests the connection whenever nothing is answered for a while: it may be dead, or the application slow. */
  const expectAnswer = () =>
    answerTimer.start(ANSWER_TIME, () => {
      if (!pending.size || !isOpen()) return;
      log("pings");
      link?.probe(true);
      expectAnswer();
    });

  return requests;
};
