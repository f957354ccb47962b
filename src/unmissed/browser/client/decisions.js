/**
 * Decisions of the client: pure functions of facts, without a socket, timer or clock.
 *
 * @import { Action, Actions, Frame } from "../types.js"
 */

/**
 * The position of a client: the highest sequence number that it has seen, and the epoch of the server's log. The number
 * `declared` is the end of the last gap that was declared.
 *
 * @typedef {{ position?: number, epoch?: string, declared?: number }} Place
 */

/**
 * What was lost: the detail of a `gap` or `reset` event.
 *
 * @typedef {{ type: "gap", from: number, to: number } | { type: "reset", epoch: string }} Loss
 */

import { attempt } from "./attempt.js";

const SHORTEST_PAUSE = 500;
/** For the first failures, about two minutes of an outage, pauses are short: a page is live soon after its end. */
const SHORT_PAUSE = 4000;
export const LONGEST_PAUSE = 30_000;
export const PATIENT_FAILURES = 60;

/** @type {Actions} */
const ACTIONS = { 1009: "stop", 4400: "stop", 4401: "renew", 4403: "stop", 4408: "renew", 4429: "slow" };

/**
 * Returns the value of a JSON text, or undefined.
 *
 * @param {any} text
 * @returns {any}
 */
export const parsedJson = (text) => attempt(() => JSON.parse(text));

/**
 * Returns the place after a frame, and the loss, if any. The position only grows, except that a reset continues at its own
 * number, also within an epoch. A gap leaves it: what is retained in the range follows. A range that ends at or below the
 * position, or was declared before, is no loss: each page of a recovery over REST declares it again, and so does each new
 * connection until the position has passed it.
 *
 * @param {any} place A `Place`.
 * @param {Frame} frame
 * @returns {Place & { loss?: any }} The loss is a `Loss`.
 */
export const placeAfter = ({ position, epoch, declared = 0 }, frame) => {
  const { type, sequence_number: number = position, from, to } = frame;
  const greets = type === "connected";
  const outcome = greets ? frame.outcome : type;
  const newEpoch = greets ? (frame.epoch ?? epoch) : epoch;
  if (greets && outcome === "reset") {
    return { position: number, epoch: newEpoch, declared: 0, loss: { type: outcome, epoch: newEpoch } };
  }
  const isGap = outcome === "gap" && to > Math.max(position, declared);
  return {
    position: position > number ? position : number,
    epoch: newEpoch,
    declared: isGap ? to : declared,
    loss: isGap ? { type: outcome, from: Math.max(from, position + 1), to } : undefined,
  };
};

/** @param {number} failures */
const longestAfter = (failures) => (failures < PATIENT_FAILURES ? SHORT_PAUSE : LONGEST_PAUSE);

/**
 * Returns the milliseconds before the next attempt: a random time up to a limit that doubles after every failure, from
 * half a second to the longest. `random` is a number from 0 to 1: full jitter, so that clients do not reconnect together.
 *
 * @param {number} failures How many were there in a row.
 */
export const pauseAfterFailures = (failures, longest = longestAfter(failures), random = Math.random()) =>
  random * Math.min(longest, SHORTEST_PAUSE * 2 ** failures);

/**
 * Returns what to do after a close code. An HTTP status is one when 4000 is added.
 *
 * @param {number} code
 * @returns {Action}
 */
export const actionAfter = (code) => ACTIONS[code] ?? "resume";

/**
 * Returns all topics after a change, sorted.
 *
 * @param {string[] | undefined} topics
 * @param {string[]} added
 * @param {string[]} removed
 */
export const topicsAfter = (topics = [], added, removed) =>
  [...new Set([...topics, ...added])].filter((topic) => !removed.includes(topic)).sort();
