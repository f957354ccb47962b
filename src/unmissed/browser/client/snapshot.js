/**
 * The snapshot of a stream, and the messages that wait for it.
 *
 * @import { Message } from "../types.js"
 * @import { Settings } from "./settings.js"
 */

import { pauseAfterFailures } from "./decisions.js";

/**
 * Returns what a snapshot function returned, if it is a sequence number or nothing. Throws TypeError.
 *
 * @param {any} number
 * @returns {number | undefined}
 */
const checkedNumber = (number) => {
  if (number == null || (Number.isSafeInteger(number) && number >= 0)) return number ?? undefined;
  throw new TypeError(`snapshot must return a sequence number, or nothing, and not ${number}`);
};

/**
 * What follows a snapshot.
 *
 * @typedef {object} Receiver
 * @property {(held: Message[], number: number) => void} resume Those after the number are due.
 * @property {(number: number) => void} rewind The snapshot lacks messages that do not wait.
 */

export class Snapshot {
  /** @type {Message[] | undefined} */
  #held;
  /** After this position, all messages wait, have come, or were declared as lost. */
  #accountedAfter = 0;
  #load;
  #limit;
  #receiver;

  /**
   * @param {Settings} settings
   * @param {Receiver} receiver
   */
  constructor({ snapshot, limit }, receiver) {
    this.#load = snapshot;
    this.#limit = limit;
    this.#receiver = receiver;
  }

  /** Whether messages wait. */
  get isLoading() {
    return Boolean(this.#held);
  }

  /**
   * Holds messages back until another snapshot is loaded, and drops those held before. A snapshot that is older than
   * `accountedAfter` lacks messages that neither wait nor were declared as lost.
   *
   * @param {number} accountedAfter
   */
  hold(accountedAfter) {
    if (!this.#load) return;
    const loads = this.isLoading;
    this.#held = [];
    this.#accountedAfter = accountedAfter;
    if (!loads) this.#loadUntilCurrent();
  }

  /**
   * Returns whether a message waits.
   *
   * @param {Message} message
   */
  holds(message) {
    if (!this.#held) return false;
    this.#held.push(message);
    if (this.#held.length > this.#limit) this.hold(message.sequence_number);
    return true;
  }

  close() {
    this.#held = undefined;
  }

  async #loadUntilCurrent(failures = 0) {
    await new Promise((resolve) => setTimeout(resolve, failures && pauseAfterFailures(failures)));
    const held = this.#held;
    if (!held) return;
    try {
      const number = checkedNumber(await /** @type {any} */ (this.#load)?.());
      // Otherwise something was lost while the snapshot was loaded: the next one decides.
      if (held === this.#held) {
        this.#held = undefined;
        this.#resume(held, number ?? this.#accountedAfter);
        return;
      }
    } catch (error) {
      reportError(error);
      failures++;
    }
    if (this.#held) this.#loadUntilCurrent(failures);
  }

  /**
   * @param {Message[]} held
   * @param {number} number
   */
  #resume(held, number) {
    if (number < this.#accountedAfter) this.#receiver.rewind(number);
    else this.#receiver.resume(held, number);
  }
}
