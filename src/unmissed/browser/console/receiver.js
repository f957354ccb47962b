/** What happens on this page's stream, checked by number against the log. */

import { connect } from "../client.js";
import { Api } from "./api.js";
import { Ledger } from "./ledger.js";
import { Seconds } from "./seconds.js";
import { POSITION_KEY } from "./token.js";

/** @typedef {import("./api.js").Message & {recovered: boolean}} Message */
/**
 * @typedef {object} Note something that happened to the stream
 * @property {"dropped" | "back" | "renewed" | "gap" | "reset" | "unannounced"} kind
 * @property {number} [seconds]
 * @property {number} [recovered]
 * @property {number} [lost]
 * @property {boolean} [exact]
 * @property {number} [from]
 * @property {number} [to]
 */

const MOST_PAGES = 8;

/** Dispatches `message`, `note`, `status`, and `ended` with the reason why the server does not accept this page. */
export class Receiver extends EventTarget {
  ledger = new Ledger();
  seconds = new Seconds();
  /** When the connection was lost, in milliseconds, or null while there is one. @type {number | null} */
  awaySince = null;
  /** When the next attempt to connect begins, in milliseconds. @type {number | undefined} */
  retryAt;

  #begun = false;
  #listing = false;
  #reachable = true;
  /** What the counters were at the end of the last absence. */
  #recovered = 0;
  #lost = 0;
  /** Whether the server has lost its log during this absence. */
  #wasReset = false;

  /** @param {string} base @param {string} token */
  constructor(base, token) {
    super();
    this.base = base;
    this.api = new Api(base, token);
    this.stream = connect(base, { token, storage: sessionStorage, key: POSITION_KEY });
    this.#begin();
    this.stream.on("*", (/** @type {Message} */ message) => this.#receive(message));
    this.#listen("status", (detail) => this.#statusChanged(detail));
    this.#listen("gap", (detail) => this.#gap(detail));
    this.#listen("reset", () => this.#reset());
    this.#listen("refused", ({ code, reason }) =>
      this.#dispatch("ended", `The server refused this page (${code}): ${reason}`),
    );
  }

  /** @returns {"connecting" | "recovering" | "live" | "waiting" | "closed" | "unreachable"} */
  get status() {
    return this.stream.status === "waiting" && !this.#reachable ? "unreachable" : this.stream.status;
  }

  /** How many messages wait in the log for this page to come back, or undefined while nobody knows. */
  get missed() {
    if (this.status === "live") return 0;
    return this.#reachable ? this.ledger.missed : undefined;
  }

  close() {
    this.stream.close();
  }

  /** List the log, and compare. */
  async check() {
    if (!this.#begun || this.#listing) return;
    this.#listing = true;
    try {
      await this.#list();
      this.#reachable = true;
    } catch {
      this.#reachable = false;
    } finally {
      this.#listing = false;
    }
  }

  async #list() {
    for (let pages = 0, more = true; more && pages < MOST_PAGES; pages++) {
      const { since } = this.ledger;
      const page = await this.api.messages(since);
      // After a restart of the server, the stream is going to say so.
      if (page.outcome === "reset" || this.ledger.since !== since) return;
      more = page.has_more;
      this.ledger.list(page.messages, { through: page.sequence_number, oldest: page.oldest, lost: page.to });
    }
    this.#pass();
  }

  /** @param {Message} message */
  #receive(message) {
    // An ephemeral message has no number, and the log does not list it.
    if (message.sequence_number === undefined) {
      this.#dispatch("message", message);
      return;
    }
    this.#begin(message.sequence_number - 1);
    if (this.ledger.receive(message)) this.seconds.add(message.timestamp, message.recovered ? "recovered" : "live");
    this.#dispatch("message", message);
  }

  /** @param {{milliseconds?: number, code?: number}} detail */
  #statusChanged({ milliseconds, code }) {
    // The stream would be patient, but a person can give another token at once.
    if (code === 4401) {
      this.stream.close();
      this.#dispatch("ended", "The token was refused, or it has expired.");
      return;
    }
    this.retryAt = milliseconds === undefined ? undefined : Date.now() + milliseconds;
    if (this.status === "recovering" || this.status === "live") this.#begin();
    if (this.status === "waiting") this.#leave();
    if (this.status === "live") this.#return();
    this.#dispatch("status");
  }

  #leave() {
    if (this.awaySince !== null) return;
    this.awaySince = Date.now();
    this.#note({ kind: "dropped" });
  }

  /** Report what was recovered, after a loss of the connection or after a reload of the page. */
  #return() {
    const recovered = this.ledger.recovered - this.#recovered;
    const lost = this.ledger.lost - this.#lost;
    const seconds = this.awaySince === null ? undefined : (Date.now() - this.awaySince) / 1000;
    [this.#recovered, this.#lost, this.awaySince] = [this.ledger.recovered, this.ledger.lost, null];
    if (seconds !== undefined || recovered > 0) {
      this.#note({ kind: this.#wasReset ? "renewed" : "back", seconds, recovered, lost, exact: this.ledger.exact });
    }
    this.#wasReset = false;
  }

  /** @param {{from: number, to: number}} gap */
  #gap(gap) {
    const { lost, exact } = this.ledger.gap(gap);
    this.#note({ kind: "gap", ...gap, lost: this.#lose(lost), exact });
  }

  #reset() {
    this.#wasReset = true;
    this.#note({ kind: "reset", lost: this.#lose(this.ledger.reset()) });
    this.#begun = false;
  }

  /** Report what the stream has passed without delivering it: an error of the client or the server. */
  #pass() {
    const lost = this.#lose(this.ledger.pass(this.stream.position ?? 0));
    if (lost > 0) this.#note({ kind: "unannounced", lost });
  }

  /** @param {string[]} timestamps */
  #lose(timestamps) {
    for (const timestamp of timestamps) this.seconds.add(timestamp, "lost");
    return timestamps.length;
  }

  /** Start the ledger as soon as the position is known. */
  #begin(position = this.stream.position) {
    if (this.#begun || position === undefined || position === null) return;
    this.ledger.begin(position);
    this.#begun = true;
  }

  /** @param {Note} note */
  #note(note) {
    this.#dispatch("note", note);
  }

  /** @param {string} type @param {unknown} [detail] */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {keyof import("../types.js").StreamEvents} type @param {(detail: any) => void} handler */
  #listen(type, handler) {
    this.stream.addEventListener(type, (event) => handler(/** @type {CustomEvent} */ (event).detail));
  }
}
