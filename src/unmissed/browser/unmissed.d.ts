/**
 * Unmissed in the browser: messages that survive reconnects. The options and types are in types.js.
 *
 * @import * as is from "./types.js"
 */
/** @type {is.Read} */
export const read: is.Read;
/** @type {is.Advance} */
export const advance: is.Advance;
/** @type {is.Backoff} */
export const backoff: is.Backoff;
/** @type {is.Next} */
export const next: is.Next;
/** @type {is.EventParser} */
export const eventParser: is.EventParser;
/** @type {is.Connect} */
export const connect: is.Connect;
import type * as is from "./types.js";
