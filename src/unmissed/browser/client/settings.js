/**
 * The options of a stream with their defaults.
 *
 * @import { Options } from "../types.js"
 */

const LIMIT = 1000;

/**
 * @typedef {Omit<Options, "transports"> & {
 *   transports: string[],
 *   credentials: RequestCredentials,
 *   limit: number,
 *   key: string,
 * }} Settings
 */

/**
 * @param {string} url
 * @param {Options} options
 * @returns {Settings}
 */
export const settingsOf = (url, options) => ({
  transports: ["websocket", "events", "polling"],
  credentials: "same-origin",
  limit: LIMIT,
  key: `unmissed:${[url, options.topics]}`,
  ...options,
});
