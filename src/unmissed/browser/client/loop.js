/**
 * `for await` over the messages of a stream.
 *
 * @import { Messages, Stream } from "../types.js"
 */

import { TOO_MANY, failure } from "./failures.js";

/** How far behind a loop may be, in multiples of the option `limit`. */
const LOOP_FACTOR = 20;

/**
 * Yields the messages of a stream until it is closed. Those that the loop has not taken yet are kept, up to a limit, after
 * which it throws.
 *
 * @param {Pick<Stream, "on">} stream
 * @param {{ limit: number, signal: AbortSignal }} bounds The signal ends it.
 * @returns {AsyncGenerator<Messages, void, undefined>}
 */
export async function* messagesOf(stream, { limit, signal }) {
  const most = LOOP_FACTOR * limit;
  /** @type {Messages[]} */
  const waiting = [];
  let full = false;
  let wake = () => {};
  const awake = () => wake();
  const stop = stream.on("*", (message) => {
    full ||= waiting.length >= most;
    if (!full) waiting.push(message);
    wake();
  });
  signal.addEventListener("abort", awake);
  try {
    while (waiting.length || !(full || signal.aborted)) {
      if (!waiting.length) {
        await new Promise((resolve) => {
          wake = () => resolve(undefined);
        });
      }
      yield* waiting.splice(0, 1);
    }
    if (full) throw failure(TOO_MANY, "the loop is too slow for the messages: raise limit, or use on()");
  } finally {
    stop();
    signal.removeEventListener("abort", awake);
  }
}
