/**
 * The connection of a stream: which attempt is made when, what replaces it, and what follows its end.
 *
 * @import { Action, Frame, Status } from "../types.js"
 * @import { Cause } from "./failures.js"
 * @import { Source } from "./link.js"
 * @import { Settings } from "./settings.js"
 * @import { TabGroup } from "./sharing.js"
 * @import { Tokens } from "./tokens.js"
 */

import { actionAfter, pauseAfterFailures } from "./decisions.js";
import { openEvents } from "./events.js";
import { LOST } from "./failures.js";
import { HANDSHAKE_TIME, Link } from "./link.js";
import { openPolling } from "./polling.js";
import { openTabs } from "./tabs.js";
import { Timer } from "./timer.js";
import { RACE_TIME, TransportChoice } from "./transport_choice.js";
import { openWebSocket } from "./websocket.js";

/** How long the function for a token may take: a user may have to log in first. */
const TOKEN_TIME = 300_000;
/** A connection that lasted this long resets the pauses to short ones. */
const LASTING_TIME = 5000;
/** The most failures that count: after a server that accepts and drops, and after one that cannot be reached. */
const FAILURES_OF_CONNECTED = 3;
const FAILURES = 6;
/** After a frame that is younger, an event of the page needs no ping. */
const RECENT_TIME = 5000;
/** A token is renewed after this part of its lifetime, and never at once. */
const RENEWED_PART = 0.8;
const SOONEST_RENEWAL = 1000;
/** A close code below is an error of the browser, such as that of a DOMException. */
const FIRST_CODE = 1000;

/** @type {Record<string, import("./link.js").Transport>} */
const TRANSPORTS = { websocket: openWebSocket, events: openEvents, polling: openPolling, tabs: openTabs };

/** @type {Partial<Record<Action, "refused" | "unauthorized">>} */
const REFUSALS = { stop: "refused", renew: "unauthorized" };

/**
 * What a stream does about its connection.
 *
 * @typedef {object} Listener
 * @property {(link: Link, frame: Frame) => void} take
 * @property {(status: Status, detail?: object) => void} become
 * @property {(type: "refused" | "unauthorized", detail: object) => void} refuse
 * @property {() => void} slowDown The server found the requests too many.
 */

export class Connections {
  /** @type {Link | undefined} The connection or the attempt. */
  link;
  /** @type {Link | undefined} An attempt beside it, to replace it. */
  #candidate;
  #settings;
  #source;
  #tokens;
  #tabs;
  #listener;
  #choice;
  #timer = new Timer();
  #failures = 0;
  #notBefore = 0;

  /**
   * @param {Settings} settings
   * @param {{ source: Source, tokens: Tokens, tabs: TabGroup }} parts
   * @param {Listener} listener
   */
  constructor(settings, { source, tokens, tabs }, listener) {
    this.#settings = settings;
    this.#source = source;
    this.#tokens = tokens;
    this.#tabs = tabs;
    this.#listener = listener;
    this.#choice = new TransportChoice(settings.transports);
  }

  open() {
    this.#tabs.join();
    this.end();
    this.link = this.#start(this.#tabs.follows && !this.#choice.alone ? "tabs" : this.#choice.next);
    this.#listener.become("connecting");
  }

  end() {
    this.#timer.stop();
    this.link?.abort();
    this.#candidate?.abort();
    this.link = undefined;
    this.#candidate = undefined;
  }

  /** @param {number} milliseconds The least pause before the next attempt. */
  drop(milliseconds) {
    this.postpone(milliseconds);
    if (this.link) this.link.end();
    else this.wait();
  }

  /** @param {number} milliseconds How long the server, or the page, wants no attempt. */
  postpone(milliseconds) {
    this.#notBefore = Date.now() + milliseconds;
  }

  /**
   * Begins with the first frame of a link, which is `connected`: one beside the present one replaces it.
   *
   * @param {Link} link
   */
  promote(link) {
    if (link === this.link) return;
    this.link?.abort();
    this.link = link;
    this.#candidate = undefined;
  }

  /**
   * @param {Link} link
   * @param {Frame} frame
   */
  connected(link, frame) {
    link.greet(frame);
    link.beside = this.#choice.isBehindBest(link.transport) ? 0 : Infinity;
    this.#tokens.accepted();
    this.#choice.connected(link);
    this.expectRenewal(link, frame);
  }

  /**
   * Renews the token after 80 % of its lifetime. With a wrong clock, the renewal is late or missing. Then the server closes
   * the connection with 4401, and the client reconnects with a fresh token.
   *
   * @param {Link} link
   * @param {Frame} frame
   */
  expectRenewal(link, { expires_at }) {
    const left = expires_at * 1000 - Date.now();
    const renews = left > 0 && this.#tokens.canRenew && link.transport !== "tabs";
    link.renewal = renews ? Date.now() + Math.max(SOONEST_RENEWAL, left * RENEWED_PART) : Infinity;
    link.watch();
  }

  /**
   * Reacts to an event of the page. `offline` may be wrong, for example with a VPN, so it only pings the server, as the
   * other events do when the last frame is old. A page that is frozen or may be stored must have no connection.
   *
   * @param {string} type
   */
  notice(type) {
    const { link } = this;
    if (type === "visibilitychange" && document.hidden) return;
    if (!link || (type === "online" && !link.connected)) {
      if (type === "online") this.#choice.forgetMisses();
      if (type !== "offline") this.wait();
    } else if (link.connected && (type === "offline" || link.deadline - Date.now() < link.silence - RECENT_TIME)) {
      link.probe();
    }
  }

  /**
   * Waits for the next attempt.
   *
   * @param {number} [pause] In milliseconds.
   * @param {object} [end] Why the connection has ended.
   */
  wait(pause = 0, end = {}) {
    const milliseconds = Math.max(pause, this.#notBefore - Date.now());
    this.#timer.start(milliseconds, () => this.open());
    this.#listener.become("waiting", { ...end, milliseconds });
  }

  /**
   * @param {string} transport
   * @param {Promise<string | undefined>} [token] That of the connection beside.
   */
  #start(transport, token) {
    const { credentials } = this.#settings;
    const link = new Link(
      { transport, credentials, bare: this.#choice.isBare, port: this.#tabs.port, token },
      {
        take: (taker, frame) => this.#listener.take(taker, frame),
        lose: (lost, cause) => this.#followEnd(lost, cause),
        expire: (expired) => this.#endSilent(expired),
        renew: (renewed) => this.#renewToken(renewed),
        tryBeside: (slow) => this.#tryBeside(slow),
        freshToken: (asking) => this.#freshToken(asking),
      },
    );
    TRANSPORTS[transport](this.#source, link).then((send) => (link.send = send), link.end);
    return link;
  }

  /**
   * Begins a connection that replaces the present one as soon as it is connected.
   *
   * @param {string} transport
   * @param {Promise<string | undefined>} [token]
   */
  #startBeside(transport, token) {
    this.#candidate?.abort();
    this.#candidate = this.#start(transport, token);
  }

  /** @param {Link} link */
  #tryBeside(link) {
    const others = this.#choice.besides(link.transport);
    if (link.connected) {
      link.tries++;
      this.#startBeside(this.#choice.best);
    } else if (link === this.link && others.length) {
      link.beside = Date.now() + RACE_TIME;
      this.#startBeside(others[link.tries % others.length], link.token());
      link.tries++;
    }
  }

  /** @param {Link} link */
  #endSilent(link) {
    if (link.transport === "tabs") this.#tabs.compete(true);
    link.end();
  }

  /**
   * Returns a token for a link. The time limit of a new connection begins when it has its token.
   *
   * @param {Link} link
   */
  async #freshToken(link) {
    const begins = !link.connected && link.transport !== "tabs";
    if (begins) link.allow(TOKEN_TIME);
    const token = await this.#tokens.fresh();
    link.attempted = true;
    if (begins) {
      link.beside = Date.now() + this.#choice.raceTime(link.transport);
      link.allow(HANDSHAKE_TIME);
    }
    return token;
  }

  /** @param {Link} link */
  #renewToken(link) {
    if (link.transport === "websocket") this.#renewInBand(link).catch(reportError);
    else this.#startBeside(link.transport);
  }

  /** @param {Link} link */
  async #renewInBand(link) {
    const known = this.#tokens.current;
    const token = await this.#freshToken(link);
    if (token !== known) link.send?.({ type: "authenticate", token });
  }

  /**
   * Decides what follows the end of a connection. A connection that lasted five seconds resets the pauses to short ones.
   * With a server that accepts and then drops, they grow to four seconds, and with one that cannot be reached to thirty.
   *
   * @param {Link} link
   * @param {Cause} cause
   */
  #followEnd(link, cause) {
    link.abort();
    // Errors of the browser have other codes, and a message.
    const code = cause.code >= FIRST_CODE ? cause.code : LOST;
    const end = { code, reason: cause.reason ?? cause.message ?? "" };
    this.#choice.ended(link, code);
    if (this.link && link !== this.link) {
      this.#loseBeside(this.link);
    } else if (this.#candidate && !link.connected) {
      // The other transport of the race continues alone.
      this.link = this.#candidate;
      this.#candidate = undefined;
    } else {
      this.end();
      this.#goOnAfter(link, cause, end);
    }
  }

  /** @param {Link} link The present one. */
  #loseBeside(link) {
    this.#candidate = undefined;
    if (link.connected) link.beside = Date.now() + 2 * pauseAfterFailures(link.tries - 1);
    link.watch();
  }

  /**
   * @param {Link} link
   * @param {Cause} cause
   * @param {{ code: number, reason: string }} end
   */
  #goOnAfter(link, cause, end) {
    const action = this.#choice.trusts(link) ? actionAfter(end.code) : "resume";
    const refusal = REFUSALS[action];
    // Only the server itself closes a WebSocket with such a code.
    const isFinal = action === "stop" && link.transport === "websocket";
    if (refusal && (isFinal || this.#tokens.refused())) {
      this.#listener.refuse(refusal, end);
      return;
    }
    if (action === "slow" && link.connected) this.#listener.slowDown();
    if (action === "resume" && link.attempted && !link.connected) this.#choice.missed(link);
    this.wait(this.#pauseAfter(link, action, cause), end);
  }

  /**
   * @param {Link} link
   * @param {Action} action
   * @param {Cause} cause
   */
  #pauseAfter({ transport, connected }, action, { answered }) {
    if (connected && Date.now() - connected > LASTING_TIME) this.#failures = 0;
    // The network works, but this transport does not: the preferred one is next.
    if (answered && !connected && action === "resume" && transport !== this.#choice.preferred) return 0;
    const pause = action === "renew" && !this.#failures ? 0 : pauseAfterFailures(this.#failures);
    this.#failures = Math.min(this.#failures + 1, connected ? FAILURES_OF_CONNECTED : FAILURES);
    return pause;
  }
}
