/**
 * The options of a stream with their defaults.
 *
 * @import { Options } from "../types.js"
 * @import { Log } from "./report.js"
 */

import { logFor } from "./report.js";

/** The names of the transports, the best one first. @type {string[]} */
const TRANSPORTS = ["websocket", "events", "polling"];
const LIMIT = 1000;
const SNAPSHOT_TIME = 30_000;

/**
 * @typedef {Omit<Options, "transports"> & {
 *   url: string,
 *   transports: string[],
 *   credentials: RequestCredentials,
 *   limit: number,
 *   key: string,
 *   snapshotTimeout: number,
 * }} Choices The options, and the defaults of those that were left out.
 */

/** @typedef {Choices & { log: Log }} Settings */

/**
 * Throws TypeError if no transport, or an unknown one, is to be used.
 *
 * @param {string} url
 * @param {Options} options
 * @returns {Settings}
 */
export const settingsOf = (url, options) => {
  const transports = [options.transports ?? TRANSPORTS].flat();
  if (!transports.length || transports.some((name) => !TRANSPORTS.includes(name))) {
    throw new TypeError(`transports [${transports}]: name some of ${TRANSPORTS}`);
  }
  const choices = {
    credentials: /** @type {RequestCredentials} */ ("same-origin"),
    limit: LIMIT,
    key: `unmissed:${[url, options.topics]}`,
    snapshotTimeout: SNAPSHOT_TIME,
    ...options,
    url,
    transports,
  };
  return { ...choices, log: logFor(choices) };
};
