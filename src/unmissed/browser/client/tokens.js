/** The token of a stream, and what the server thinks of it. */

/** How long a refused token is retried: if the clock of its issuer is ahead, each new token is refused at first. */
const RETRIED_TIME = 5000;
/** A refusal is final after this time and this many refusals: until then, a clock may be wrong, or a gateway down. */
const REFUSED_TIME = 30_000;
const REFUSALS = 3;

export class Tokens {
  /** @type {string | undefined} */
  current;
  #source;
  #since = 0;
  // How often the client was refused since it was accepted, and since when.
  #refusals = 0;
  #refusedSince = 0;

  /** @param {import("../types.js").Options["token"]} source */
  constructor(source) {
    this.#source = source;
  }

  /** Whether another token can be had before this one expires. */
  get canRenew() {
    return typeof this.#source === "function";
  }

  /** Returns a fresh token, or one that was refused a moment ago and may be valid now. */
  async fresh() {
    // The first refusal may be that of an expired token.
    if (this.#refusals < 2 || Date.now() - this.#since >= RETRIED_TIME) {
      this.current = await (typeof this.#source === "function" ? this.#source() : this.#source);
      this.#since = Date.now();
    }
    return this.current;
  }

  accepted() {
    this.#refusals = 0;
  }

  /** Counts a refusal, and returns whether it is final. */
  refused() {
    const now = Date.now();
    if (this.#refusals === 0) this.#refusedSince = now;
    this.#refusals++;
    return this.#refusals >= REFUSALS && now - this.#refusedSince >= REFUSED_TIME;
  }
}
