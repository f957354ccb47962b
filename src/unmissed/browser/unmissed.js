/**
 * Unmissed in the browser: messages that survive reconnects. The options and types are in types.d.ts, and the parts of the
 * client in the folder client.
 *
 * @import * as types from "./types.js"
 */

import { serverUrl } from "./client/address.js";
import { openStream } from "./client/stream.js";

/** @type {types.Connect} */
export const connect = (url, /** @type {types.Options<any>} */ options = {}) => {
  /** @type {types.Stream<any, any>} What events and commands contain is what the application declares. */
  const stream = openStream(serverUrl(url), options);
  return stream;
};
