/**
 * The position of a stream in a `Storage`, over reloads of its page.
 *
 * @import { Place } from "./decisions.js"
 * @import { Settings } from "./settings.js"
 */

import { parsedJson } from "./decisions.js";

export class PositionStore {
  #storage;
  #key;

  /** @param {Settings} settings */
  constructor({ storage, key }) {
    this.#storage = storage;
    this.#key = key;
  }

  /**
   * Returns the stored place, or undefined. What another program has stored under the key is none.
   *
   * @returns {Place | undefined}
   */
  get place() {
    const stored = parsedJson(this.#storage?.getItem(this.#key));
    return stored?.[1] ? { position: stored[0], epoch: stored[1] } : undefined;
  }

  /** @param {Place} place */
  save({ position, epoch }) {
    if (!epoch) return;
    try {
      this.#storage?.setItem(this.#key, JSON.stringify([position, epoch]));
    } catch (error) {
      reportError(error);
    }
  }
}
