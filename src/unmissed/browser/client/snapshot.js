/**
 * The snapshot of a stream, and the messages that wait for it.
 *
 * @import { Message, SnapshotStatus } from "../types.js"
 * @import { Place } from "./decisions.js"
 * @import { Settings } from "./settings.js"
 */

import { pauseAfterFailures } from "./decisions.js";
import { createTimer } from "./timer.js";
import { createTokens } from "./tokens.js";

/**
 * Returns what a snapshot function returned, if it is a sequence number or nothing. Throws TypeError.
 *
 * @param {any} number
 * @returns {number | undefined}
 */
const checkedNumber = (number) => {
  if (number == null || (Number.isSafeInteger(number) && number >= 0)) return number ?? undefined;
  throw new TypeError(`snapshot must return a sequence number, or nothing`);
};

/**
 * Returns a `fetch` with a token for the stream, which only the origin of its server gets. It is not that of the connection,
 * which may have expired, or be in another tab.
 *
 * @param {Settings} settings
 * @param {AbortSignal} signal Ends its requests.
 * @returns {typeof fetch}
 */
const authorizedFetch = ({ url, credentials, token }, signal) => {
  /** @type {Promise<string | undefined> | undefined} */
  let fresh;
  return async (input, init) => {
    const request = new Request(input, { credentials, signal, ...init });
    if (new URL(request.url).origin === new URL(url).origin) {
      fresh ??= createTokens(token).fresh();
      if (await fresh) request.headers.set("Authorization", `Bearer ${await fresh}`);
    }
    return fetch(request);
  };
};

/**
 * What follows a snapshot.
 *
 * @typedef {object} Receiver
 * @property {() => void} [begin] What was delivered before is void.
 * @property {(held: Message[], number: number) => void} goOnWith Those after the number are due.
 * @property {(place: Place) => void} [rewind] The snapshot lacks messages that do not wait.
 * @property {(status: SnapshotStatus, detail?: object) => void} [change]
 * @property {(error: any, during: string) => void} report
 */

/**
 * @param {Settings} settings
 * @param {Receiver} receiver
 */
export const createSnapshot = (settings, receiver) => {
  const { snapshot: load, snapshotTimeout, limit } = settings;
  const timer = createTimer();
  /** @type {Message[] | undefined} */
  let held;
  /** After this position, all messages wait, have come, or were declared as lost. */
  let accountedAfter = 0;
  let control = new AbortController();

  const snapshot = {
    /** Whether messages wait. */
    isLoading: () => Boolean(held),

    /**
     * Holds messages back until another snapshot is loaded, and drops those held before. A snapshot that is older than
     * this position lacks messages that neither wait nor were declared as lost.
     *
     * @param {number} position
     */
    hold(position) {
      if (!load) return;
      const loads = snapshot.isLoading();
      held = [];
      accountedAfter = position;
      receiver.begin?.();
      if (loads) return;
      receiver.change?.("loading");
      loadAfter(0);
    },

    /**
     * Returns whether a message waits.
     *
     * @param {Message} message
     */
    holds(message) {
      if (!held) return false;
      held.push(message);
      if (held.length > limit) snapshot.hold(/** @type {number} */ (message.sequence_number));
      return true;
    },

    close() {
      held = undefined;
      timer.halt();
      control.abort();
    },
  };

  /** @param {number} failures How many were there in a row. */
  const loadAfter = (failures) =>
    timer.start(failures && pauseAfterFailures(failures), async () => {
      const waiting = held;
      if (failures) receiver.change?.("loading");
      try {
        const number = checkedNumber(await loadInTime());
        // Otherwise something was lost while the snapshot was loaded: the next one decides.
        if (waiting && waiting === held) goOn(waiting, number ?? accountedAfter);
        else if (held) loadAfter(0);
      } catch (error) {
        if (!held) return;
        receiver.change?.("failed");
        receiver.report(error, "snapshot");
        loadAfter(failures + 1);
      }
    });

  /** Returns what the function of the application returns. Rejects when its time is over, or the stream is closed. */
  const loadInTime = async () => {
    control = new AbortController();
    const { signal } = control;
    const late = new Error(`longer than ${snapshotTimeout} ms: raise snapshotTimeout`);
    const aborted = new Promise((_, reject) => (signal.onabort = () => reject(late)));
    timer.start(snapshotTimeout, () => control.abort(late));
    const loaded = load?.({ signal, fetch: authorizedFetch(settings, signal) });
    return Promise.race([loaded, aborted]).finally(timer.halt);
  };

  /**
   * @param {Message[]} waiting
   * @param {number} number
   */
  const goOn = (waiting, number) => {
    held = undefined;
    receiver.change?.("loaded", { number });
    if (number < accountedAfter) receiver.rewind?.({ position: number });
    else receiver.goOnWith(waiting, number);
  };

  return snapshot;
};
