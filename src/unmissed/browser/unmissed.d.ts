/** @type {types.Read} */
export const read: types.Read;
/** @type {types.Advance} */
export const advance: types.Advance;
/** @type {types.Backoff} */
export const backoff: types.Backoff;
/** @type {types.Next} */
export const next: types.Next;
/** @type {types.EventParser} */
export const eventParser: types.EventParser;
/** @type {types.Connect} */
export const connect: types.Connect;
import type * as types from "./types.js";
