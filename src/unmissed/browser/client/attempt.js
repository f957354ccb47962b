/** Attempts whose failure is an everyday answer: storage may be blocked, and a text may be no JSON. */

/**
 * Returns what a function returns, or undefined if it throws.
 *
 * @template Found
 * @param {() => Found} access
 * @param {(error: any) => void} [notice]
 */
export const attempt = (access, notice) => {
  try {
    return access();
  } catch (error) {
    notice?.(error);
    return undefined;
  }
};
