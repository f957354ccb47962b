/** The token of a stream, and what the server thinks of it. */

/** How long a refused token is retried: if the clock of its issuer is ahead, each new token is refused at first. */
const RETRIED_TIME = 5000;
/** A refusal is final after this time and this many refusals: until then, a clock may be wrong, or a gateway down. */
const REFUSED_TIME = 30_000;
const REFUSALS = 3;

/** @typedef {ReturnType<typeof createTokens>} Tokens */

/** @param {import("../types.js").Options["token"]} token */
export const createTokens = (token) => {
  let fetchedAt = 0;
  // How often the client was refused since it was accepted, and since when.
  let refusals = 0;
  let refusedSince = 0;

  const tokens = {
    /** @type {string | undefined} */
    current: undefined,

    /** Whether another token can be had before this one expires. */
    canRenew: typeof token === "function",

    /** Returns a fresh token, or one that was refused a moment ago and may be valid now. */
    async fresh() {
      // The first refusal may be that of an expired token.
      if (refusals < 2 || Date.now() - fetchedAt >= RETRIED_TIME) {
        tokens.current = await (typeof token === "function" ? token() : token);
        fetchedAt = Date.now();
      }
      return tokens.current;
    },

    acceptCurrent() {
      refusals = 0;
    },

    /** Counts a refusal, and returns whether it is final. */
    refuse() {
      const now = Date.now();
      if (refusals === 0) refusedSince = now;
      refusals++;
      return refusals >= REFUSALS && now - refusedSince >= REFUSED_TIME;
    },
  };
  return tokens;
};
