/**
 * The position of a stream in a `Storage`, over reloads of its page.
 *
 * @import { Place } from "./decisions.js"
 * @import { Settings } from "./settings.js"
 */

import { attempt } from "./attempt.js";
import { parsedJson } from "./decisions.js";

/**
 * @param {Settings} settings
 * @param {(error: any, during: string) => void} report Called at most once: a storage that is full or blocked stays so.
 */
export const createPositionStore = ({ storage, key }, report) => {
  let isReported = false;
  const reportOnce = (/** @type {any} */ error) => {
    if (!isReported) report(error, "storage");
    isReported = true;
  };

  return {
    /**
     * Returns the stored place, or undefined. What another program has stored under the key is none.
     *
     * @returns {Place | undefined}
     */
    load() {
      const stored = parsedJson(attempt(() => storage?.getItem(key), reportOnce));
      const isPlace = Number.isSafeInteger(stored?.[0]) && stored[1];
      return isPlace ? { position: stored[0], epoch: stored[1] } : undefined;
    },

    /** @param {Place} place */
    save({ position, epoch }) {
      if (epoch) attempt(() => storage?.setItem(key, JSON.stringify([position, epoch])), reportOnce);
    },
  };
};
