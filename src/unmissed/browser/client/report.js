/**
 * What a stream reports about itself: failures as events `error`, and with the option `debug` every decision as a line of
 * the browser's console.
 *
 * @import { Choices } from "./settings.js"
 */

import { attempt } from "./attempt.js";

/**
 * Writes a line for the developer of a page.
 *
 * @callback Log
 * @param {...any} words
 * @returns {void}
 */

/**
 * Returns how to write lines: not at all, unless the option or `localStorage.unmissed` asks for it.
 *
 * @param {Choices} choices
 * @returns {Log}
 */
export const logFor = ({ url, debug = attempt(() => localStorage.unmissed === "debug") }) => {
  if (!debug) return () => {};
  return (...words) => console.debug(`unmissed ${url}:`, ...words.map(asText));
};

const asText = (/** @type {any} */ word) => (typeof word === "object" ? JSON.stringify(word) : word);

/**
 * Explains the end of a stream, with the reason of the server, which names the fix.
 *
 * @param {string} type `refused` or `unauthorized`.
 * @param {{ code: number, reason: string }} end
 */
export const explainEnd = (type, { code, reason }) => console.error(`unmissed: ${type} (${code}): ${reason}`);
