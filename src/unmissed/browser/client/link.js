/**
 * One connection, from the attempt to its end.
 *
 * @import { Frame } from "../types.js"
 * @import { Cause } from "./failures.js"
 */

import { Timer } from "./timer.js";

/** How long an attempt may take, without the time in functions of the application. */
export const HANDSHAKE_TIME = 10_000;
/** How long the answer to a ping may take. */
const PONG_TIME = 2500;
/** The silence after which a connection is lost, in heartbeats. */
const SILENT_HEARTBEATS = 2.5;
/** The seconds between heartbeats, if the server does not name them, as over REST. */
const HEARTBEAT_SECONDS = 25;

/**
 * What transports need to know of a stream. The position moves while they run.
 *
 * @typedef {{ url: string, position?: number, epoch?: string, topics?: string[] }} Source
 */

/**
 * Sends a frame of the client, or does its equivalent.
 *
 * @typedef {(frame: Frame) => void} Send
 */

/**
 * Opens a connection, and returns how to send a frame. Rejects with a `Cause`.
 *
 * @typedef {(source: Source, link: Link) => Promise<Send>} Transport
 */

/**
 * What happens to a link, and who decides what follows.
 *
 * @typedef {object} Owner
 * @property {(link: Link, frame: any) => void} take A frame of the server has come.
 * @property {(link: Link, cause: Cause) => void} lose The connection has ended.
 * @property {(link: Link) => void} expire Nothing has come for too long.
 * @property {(link: Link) => void} renew The token expires soon.
 * @property {(link: Link) => void} tryBeside It is time for an attempt beside this connection.
 * @property {(link: Link) => Promise<string | undefined>} freshToken Returns a token for it.
 */

/**
 * It is aborted when it has ended or is not needed. After that, `take` and `end` do nothing, so that late events of an old
 * socket have no effect.
 */
export class Link {
  /** The function to send, as soon as the transport is open. @type {Send | undefined} */
  send;
  /** Whether there was a token, and so an attempt to connect. */
  attempted = false;
  /** The time of the frame `connected`, which is the greeting, and 0 before. */
  connected = 0;
  /** @type {any} */
  greeting;
  /** The highest number that it has delivered. */
  position = 0;
  /** When it is considered lost: after this many milliseconds of silence. */
  deadline = 0;
  silence = HANDSHAKE_TIME;
  /** When its token is renewed. */
  renewal = Infinity;
  /**
   * When another transport is tried in parallel: the best one, or, before the connection is open, one that may be faster;
   * and how often it was.
   */
  beside = Infinity;
  tries = 0;

  #control = new AbortController();
  #timer = new Timer();
  #owner;
  /** @type {Promise<string | undefined> | undefined} */
  #token;

  /**
   * @param {object} facts
   * @param {string} facts.transport
   * @param {RequestCredentials} facts.credentials
   * @param {boolean} facts.bare Whether a WebSocket sends the token in its first frame, and not as a subprotocol.
   * @param {any} facts.port The channel of the tabs that share a connection.
   * @param {Promise<string | undefined>} [facts.token] That of the connection beside.
   * @param {Owner} owner
   */
  constructor({ transport, credentials, bare, port, token }, owner) {
    this.transport = transport;
    this.credentials = credentials;
    this.bare = bare;
    this.port = port;
    this.attempted = Boolean(token);
    this.#token = token;
    this.#owner = owner;
    this.allow(HANDSHAKE_TIME);
  }

  get signal() {
    return this.#control.signal;
  }

  token() {
    this.#token ??= this.#owner.freshToken(this);
    return this.#token;
  }

  /** @param {any} frame Anything: it may come from another server. */
  take(frame) {
    if (!this.signal.aborted) this.#owner.take(this, frame);
  }

  /** Ends the link, with the event or error that is the cause. A function of its own, as transports pass it on. */
  end = (/** @type {Cause | void} */ cause) => {
    if (!this.signal.aborted) this.#owner.lose(this, cause ?? {});
  };

  abort() {
    this.#control.abort();
    this.#timer.stop();
  }

  /** @param {number} milliseconds The silence that is allowed from now on. */
  allow(milliseconds) {
    this.silence = milliseconds;
    this.heard();
    this.watch();
  }

  heard() {
    this.deadline = Date.now() + this.silence;
  }

  /** Asks whether the server is still reached. */
  probe() {
    this.send?.({ type: "ping" });
    this.deadline = Date.now() + PONG_TIME;
    this.watch();
  }

  /** @param {Frame} frame `connected`. */
  greet(frame) {
    this.connected = Date.now();
    this.greeting = frame;
    this.tries = 0;
    this.silence = 1000 * SILENT_HEARTBEATS * (frame.heartbeat_seconds ?? HEARTBEAT_SECONDS);
    this.heard();
  }

  /** @param {Frame} frame */
  movePosition({ type, sequence_number = 0 }) {
    const reached = type === "connected" ? 0 : this.position;
    this.position = Math.max(reached, sequence_number);
  }

  /** Does what is due, and waits for the next time. Timers of hidden pages are late, so clocks decide. */
  watch() {
    const now = Date.now();
    if (this.signal.aborted) return;
    // A clock may be set back.
    this.deadline = Math.min(this.deadline, now + this.silence);
    if (now >= this.deadline) {
      this.#owner.expire(this);
      return;
    }
    if (now >= this.renewal) {
      this.renewal = Infinity;
      this.#owner.renew(this);
    }
    if (now >= this.beside) {
      this.beside = Infinity;
      this.#owner.tryBeside(this);
    }
    this.#timer.start(Math.min(this.deadline, this.renewal, this.beside) - now, () => this.watch());
  }
}
