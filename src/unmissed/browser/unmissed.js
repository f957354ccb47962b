/**
 * Unmissed in the browser: messages that survive reconnects. The options and types are in types.d.ts, and the parts of the
 * client in the folder client.
 *
 * @import * as types from "./types.js"
 */

import { Stream } from "./client/stream.js";

/** @type {types.Connect} */
export const connect = (url, /** @type {types.Options<any>} */ options = {}) => {
  /** @type {types.Stream} */
  const stream = new Stream(String(url), options);
  // What its events and commands contain is what the application declares.
  return /** @type {types.Stream<any, any>} */ (stream);
};
