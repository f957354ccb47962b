/**
 * Decisions of the client: pure functions of facts, without a socket, timer or clock.
 *
 * @import { Action, Actions, Frame } from "../types.js"
 */

/**
 * The position of a client: the highest sequence number that it has seen, and the epoch of the server's log.
 *
 * @typedef {{ position?: number, epoch?: string }} Place
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
 * Returns the place after a frame, and the loss, if any. The position only grows, except that a reset continues at its
 * own number. A gap begins with the `first` number of the epoch at the earliest, so that a start from 0 does not count
 * numbers that never existed. Tabs that share a connection ignore a gap or reset that they have already filled or noticed.
 *
 * @param {any} place A `Place`.
 * @param {Frame} frame
 * @returns {Place & { loss?: any }} The loss is a `Loss`.
 */
export const placeAfter = ({ position, epoch }, frame) => {
  const { type, sequence_number: number = position } = frame;
  const greets = type === "connected";
  const outcome = greets ? frame.outcome : type;
  const newEpoch = greets ? (frame.epoch ?? epoch) : epoch;
  if (outcome === "reset" && newEpoch !== epoch) {
    return { position: number, epoch: newEpoch, loss: { type: outcome, epoch: newEpoch } };
  }
  const isGap = outcome === "gap" && number > position;
  const from = frame.from ?? Math.max(position + 1, frame.first ?? 0);
  return {
    position: position > number ? position : number,
    epoch: newEpoch,
    loss: isGap ? { type: outcome, from, to: number } : undefined,
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
