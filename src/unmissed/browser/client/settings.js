/**
 * The options of a stream with their defaults.
 *
 * @import { Options } from "../types.js"
 * @import { Log } from "./report.js"
 */

import { logFor } from "./report.js";

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
 * @param {string} url
 * @param {Options} options
 * @returns {Settings}
 */
export const settingsOf = (url, options) => {
  const choices = {
    transports: ["websocket", "events", "polling"],
    credentials: /** @type {RequestCredentials} */ ("same-origin"),
    limit: LIMIT,
    key: `unmissed:${[url, options.topics]}`,
    snapshotTimeout: SNAPSHOT_TIME,
    ...options,
    url,
  };
  return { ...choices, log: logFor(choices) };
};
