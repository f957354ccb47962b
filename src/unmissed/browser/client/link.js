/**
 * One connection, from the attempt to its end.
 *
 * @import { Frame } from "../types.js"
 * @import { Place } from "./decisions.js"
 * @import { Cause } from "./failures.js"
 */

import { createTimer } from "./timer.js";

/** How long an attempt may take, without the time in functions of the application. */
export const HANDSHAKE_TIME = 10_000;
/** How long the answer to a ping may take. */
const PONG_TIME = 2500;
/** The silence after which a connection is lost, in heartbeats. */
const SILENT_HEARTBEATS = 2.5;
/** The seconds between heartbeats, if the server does not name them. */
const HEARTBEAT_SECONDS = 25;

/**
 * What transports need to know of a stream. The position moves while they run. `state`: values by key are needed, too.
 *
 * @typedef {Place & { url: string, topics?: string[], state?: boolean }} Source
 */

/**
 * Sends a frame of the client, or does its equivalent. `isForRequests`: it is a ping that asks whether requests get through.
 *
 * @typedef {(frame: Frame, isForRequests?: boolean) => void} Send
 */

/**
 * Opens a connection, and returns how to send a frame. Rejects with a `Cause`.
 *
 * @typedef {(source: Source, link: Link) => Promise<Send>} Transport
 */

/**
 * What is known when an attempt begins. `bare`: a WebSocket sends the token in its first frame, and not as a subprotocol.
 * `tabPort` is the channel of the tabs that share a connection, and `shared` the token of the attempt beside.
 *
 * @typedef {{
 *   transport: string,
 *   credentials: RequestCredentials,
 *   bare: boolean,
 *   tabPort: any,
 *   shared?: Promise<string | undefined>,
 * }} Facts
 */

/**
 * What happens to a link, and who decides what follows.
 *
 * @typedef {object} Owner
 * @property {(link: Link, frame: any) => void} takeFrame A frame of the server has come.
 * @property {(link: Link, cause: Cause) => void} followEnd The connection has ended.
 * @property {(link: Link) => void} endSilent Nothing has come for too long.
 * @property {(link: Link) => void} renewToken The token expires soon.
 * @property {(link: Link) => void} tryBeside It is time for an attempt beside this connection.
 * @property {(link: Link) => Promise<string | undefined>} freshToken Returns a token for it.
 */

/** @typedef {ReturnType<typeof createLink>} Link */

/**
 * Returns a link. It is aborted when it has ended or is not needed. After that, `take` and `end` do nothing, so that late
 * events of an old socket have no effect.
 *
 * @param {Facts} facts
 * @param {Owner} owner
 */
export const createLink = ({ shared, ...facts }, owner) => {
  const control = new AbortController();
  const timer = createTimer();
  const { signal } = control;

  const link = {
    ...facts,
    signal,
    /** The function to send, as soon as the transport is open. @type {Send | undefined} */
    send: undefined,
    /** Whether there was a token, and so an attempt to connect. */
    attempted: Boolean(shared),
    /** The time of the frame `connected`, which is the greeting, and 0 before. */
    connectedAt: 0,
    /** @type {any} */
    greeting: undefined,
    /** The highest number that it has delivered. */
    position: 0,
    /** When it is considered lost: after this many milliseconds of silence. */
    deadline: 0,
    silence: 0,
    /** When its token is renewed, by a clock that nobody sets: `performance.now()`. */
    renewal: Infinity,
    /**
     * When another transport is tried in parallel: the best one, or, before the connection is open, one that may be
     * faster; and how often it was.
     */
    beside: Infinity,
    tries: 0,

    token() {
      shared ??= owner.freshToken(link);
      return shared;
    },

    /** @param {any} frame Anything: it may come from another server. */
    takeFrame(frame) {
      if (!signal.aborted) owner.takeFrame(link, frame);
    },

    /** @param {Cause | void} cause The event or error. */
    end(cause) {
      if (!signal.aborted) owner.followEnd(link, cause ?? {});
    },

    abort() {
      control.abort();
      timer.halt();
    },

    /** @param {number} milliseconds The silence that is allowed from now on. */
    allow(milliseconds) {
      link.silence = milliseconds;
      link.heard();
      link.doWhatIsDue();
    },

    heard() {
      link.deadline = Date.now() + link.silence;
    },

    /** Asks whether the server is still reached. @param {boolean} [isForRequests] */
    probe(isForRequests) {
      link.send?.({ type: "ping" }, isForRequests);
      link.waitUntil(Math.min(link.deadline, Date.now() + PONG_TIME));
    },

    /** @param {number} deadline */
    waitUntil(deadline) {
      link.deadline = deadline;
      link.doWhatIsDue();
    },

    /** @param {Frame} frame `connected`. */
    greet(frame) {
      link.connectedAt = Date.now();
      link.greeting = frame;
      link.tries = 0;
      link.silence = 1000 * SILENT_HEARTBEATS * (frame.heartbeat_seconds ?? HEARTBEAT_SECONDS);
      link.heard();
    },

    /** @param {Frame} frame */
    movePosition({ type, sequence_number = 0 }) {
      link.position = Math.max(type === "connected" ? 0 : link.position, sequence_number);
    },

    /** Does what is due, and waits for the next time. Timers of hidden pages are late, so clocks decide. */
    doWhatIsDue() {
      if (signal.aborted) return;
      const now = Date.now();
      // A clock may be set back.
      link.deadline = Math.min(link.deadline, now + link.silence);
      if (now >= link.deadline) {
        owner.endSilent(link);
        return;
      }
      if (performance.now() >= link.renewal) {
        link.renewal = Infinity;
        owner.renewToken(link);
      }
      if (now >= link.beside) {
        link.beside = Infinity;
        owner.tryBeside(link);
      }
      const untilRenewal = link.renewal - performance.now();
      timer.start(Math.min(link.deadline - now, link.beside - now, untilRenewal), link.doWhatIsDue);
    },
  };
  link.allow(HANDSHAKE_TIME);
  return link;
};
