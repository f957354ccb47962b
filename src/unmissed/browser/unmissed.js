/**
 * Unmissed in the browser: messages that survive reconnects. The options and types are in types.js, and the parts of the
 * client in the folder client.
 */

import { serverUrl } from "./client/address.js";
import { openStream } from "./client/stream.js";

/** @type {import("./types.js").Connect} */
export const connect = (url, options = {}) => openStream(serverUrl(url), options);
