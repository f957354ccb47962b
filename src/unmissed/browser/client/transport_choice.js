/**
 * Which transport is next, by what has worked and what has failed.
 *
 * @import { Link } from "./link.js"
 */

import { LOST } from "./failures.js";

/** The first attempts go to one transport: fewer, if it has never worked. */
const FIRST_ATTEMPTS = 4;
const FIRST_ATTEMPTS_OF_ALL = 2;
/**
 * Of this many WebSockets that fail in a row, one sends its token in the other way. A server that is down must not get
 * many handshakes with the token in a frame, which cost it more.
 */
const BARE_EVERY = 2;
const BARE_EVERY_IF_WORKED = 8;
/** Without an answer for this time, or twice as long if it has worked before, another transport is tried in parallel. */
export const RACE_TIME = 3000;

export class TransportChoice {
  /** Whether a tab that does not lead has its own connection, because it cannot recover over REST. */
  alone = false;
  #transports;
  /** @type {string | undefined} The transport that worked last. */
  #worked;
  // Attempts since then that had a token and no connection.
  #misses = 0;
  // Whether WebSockets send their token in the first frame, and how many in a row have failed.
  #bare = false;
  #failedSockets = 0;

  /** @param {string[]} transports The best first. */
  constructor(transports) {
    this.#transports = transports;
  }

  get best() {
    return this.#transports[0];
  }

  get preferred() {
    return this.#worked ?? this.best;
  }

  /**
   * The transport of the next attempt: the one that worked last, or else the first. After several failures, it alternates
   * with the others.
   */
  get next() {
    const { preferred } = this;
    const turn = this.#misses - (this.#worked ? FIRST_ATTEMPTS : FIRST_ATTEMPTS_OF_ALL);
    if (turn < 0 || turn % 2) return preferred;
    const others = this.besides(preferred);
    return others[(turn / 2) % others.length] ?? preferred;
  }

  /** Whether the next WebSocket sends its token in the first frame. */
  get isBare() {
    const every = this.#worked === "websocket" ? BARE_EVERY_IF_WORKED : BARE_EVERY;
    const isOther = this.#failedSockets % every === every - 1;
    return this.#bare !== isOther;
  }

  /** @param {string} transport */
  besides(transport) {
    return this.#transports.filter((name) => name !== transport);
  }

  /** @param {string} transport */
  isBehindBest(transport) {
    return this.#transports.indexOf(transport) > 0;
  }

  /**
   * Returns how long an attempt is left alone. A server to which all clients reconnect at once is slow, and a transport
   * that has worked will work again.
   *
   * @param {string} transport
   */
  raceTime(transport) {
    return transport === this.#worked ? 2 * RACE_TIME : RACE_TIME;
  }

  /**
   * Returns whether a refusal is the server's verdict about this client: on a WebSocket, where only the server sends these
   * close codes, or on a transport that has worked. Otherwise the request may lack cookies, or have met another server.
   *
   * @param {Link} link
   */
  trusts({ transport, connected }) {
    if (transport === "tabs") return false;
    if (transport === "websocket" || connected || transport === this.#worked) return true;
    return !this.#transports.includes("websocket");
  }

  /** @param {Link} link */
  connected({ transport, bare }) {
    this.#misses = 0;
    this.alone = false;
    if (transport !== "tabs") this.#worked = transport;
    if (transport === "websocket") {
      this.#bare = bare;
      this.#failedSockets = 0;
    }
  }

  /**
   * Counts a WebSocket that was not opened: a proxy may have removed the subprotocol.
   *
   * @param {Link} link
   * @param {number} code
   */
  ended({ transport, attempted, connected }, code) {
    if (transport === "websocket" && attempted && !connected && code === LOST) this.#failedSockets++;
  }

  /** @param {Link} link An attempt that failed. */
  missed({ transport }) {
    this.#misses++;
    if (transport === "tabs" && this.#misses >= FIRST_ATTEMPTS_OF_ALL) {
      this.alone = true;
      this.#misses = 0;
    }
  }

  /** Begins with the preferred transport again: the network has changed. */
  forgetMisses() {
    this.#misses = 0;
  }
}
