/**
 * `for await` over the messages of a stream.
 *
 * @import { Message, Stream } from "../types.js"
 */

import { CLOSED, TOO_MANY, failure } from "./failures.js";

/** How far behind a loop may be, in multiples of the option `limit`. */
const LOOP_FACTOR = 20;

/**
 * Yields the messages of a stream until it is closed. Those that the loop has not taken yet are kept, up to a limit, after
 * which it throws. It also throws why the stream has ended, unless the application closed it.
 *
 * @param {Pick<Stream, "on">} stream
 * @param {{ limit: number, signal: AbortSignal }} bounds The signal ends it, with an error that has a close code.
 * @returns {AsyncGenerator<Message>}
 */
export async function* messagesOf(stream, { limit, signal }) {
  const most = LOOP_FACTOR * limit;
  /** @type {Message[]} */
  const waiting = [];
  let full = false;
  /** @type {(value?: any) => void} */
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
        await new Promise((resolve) => (wake = resolve));
      }
      yield* waiting.splice(0, 1);
    }
    if (full) throw failure(TOO_MANY, "too slow: raise limit, or use on()");
    if (signal.reason.code !== CLOSED) throw signal.reason;
  } finally {
    stop();
    signal.removeEventListener("abort", awake);
  }
}
