/** A timeout without the limit of browsers, in which a longer one ends at once. */

/** The longest time of `setTimeout` in milliseconds: 24.8 days. */
const LONGEST_TIMEOUT = 2 ** 31 - 1;

/** Returns a timer, which runs one action after a time. Another start replaces the one before. */
export const createTimer = () => {
  /** @type {any} Browsers have numbers, and Node.js objects. */
  let timeout;
  const halt = () => clearTimeout(timeout);
  /**
   * @param {number} milliseconds
   * @param {() => void} action
   */
  const start = (milliseconds, action) => {
    halt();
    const part = Math.min(milliseconds, LONGEST_TIMEOUT);
    timeout = setTimeout(() => {
      if (milliseconds > part) start(milliseconds - part, action);
      else action();
    }, part);
  };
  return { start, halt };
};
