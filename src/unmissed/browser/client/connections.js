/**
 * The connection of a stream: which attempt is made when, what replaces it, and what follows its end.
 *
 * @import { Frame, Status } from "../types.js"
 * @import { Cause } from "./failures.js"
 * @import { Link, Source } from "./link.js"
 * @import { Settings } from "./settings.js"
 * @import { TabGroup } from "./sharing.js"
 * @import { Tokens } from "./tokens.js"
 */

import { LONGEST_PAUSE, pauseAfterFailures } from "./decisions.js";
import { createEndings } from "./endings.js";
import { openEvents } from "./events.js";
import { LOST, TOO_MANY } from "./failures.js";
import { HANDSHAKE_TIME, createLink } from "./link.js";
import { openPolling } from "./polling.js";
import { openTabs } from "./tabs.js";
import { createTimer } from "./timer.js";
import { RACE_TIME, createTransportChoice } from "./transport_choice.js";
import { openWebSocket } from "./websocket.js";

/** How long the function for a token may take: a user may have to log in first. */
const TOKEN_TIME = 300_000;
/** After a frame that is younger, an event of the page needs no ping. */
const RECENT_TIME = 5000;
/** A token is renewed after this part of its seconds, and never at once. */
const RENEWED_PART = 0.8;
const SOONEST_RENEWAL = 1000;
/** A close code below is an error of the browser, such as that of a DOMException. */
const FIRST_CODE = 1000;

/** @type {Record<string, import("./link.js").Transport>} */
const TRANSPORTS = { websocket: openWebSocket, events: openEvents, polling: openPolling, tabs: openTabs };

/**
 * What a stream does about its connection.
 *
 * @typedef {object} Listener
 * @property {(link: Link, frame: any) => void} takeFrame
 * @property {(status: Status, detail?: object) => void} changeStatus
 * @property {(type: "refused" | "unauthorized", end: { code: number, reason: string }) => void} refuse
 * @property {() => void} slowDown The server found the requests too many.
 * @property {(error: any, during: string) => void} report
 */

/**
 * @param {Settings} settings
 * @param {{ source: Source, tokens: Tokens, tabs: TabGroup }} parts
 * @param {Listener} listener
 */
export const createConnections = (settings, { source, tokens, tabs }, listener) => {
  const { log } = settings;
  const choice = createTransportChoice(settings);
  const sequelOf = createEndings(tokens, choice);
  const timer = createTimer();
  /** @type {Link | undefined} An attempt beside the present connection, to replace it. */
  let candidate;
  let notBefore = 0;

  const connections = {
    /** @type {Link | undefined} The connection or the attempt. */
    presentLink: undefined,

    open() {
      tabs.join();
      connections.end();
      const transport = tabs.follows() && !choice.alone ? "tabs" : choice.next();
      log("tries", transport, "from", source.position);
      connections.presentLink = start(transport);
      listener.changeStatus("connecting");
    },

    end() {
      timer.halt();
      connections.presentLink?.abort();
      candidate?.abort();
      connections.presentLink = undefined;
      candidate = undefined;
    },

    /** @param {number} milliseconds The least pause before the next attempt. */
    drop(milliseconds) {
      connections.postpone(milliseconds);
      if (connections.presentLink) connections.presentLink.end();
      else wait();
    },

    /** @param {number} milliseconds How long the server, or the page, wants no attempt. */
    postpone(milliseconds) {
      notBefore = Date.now() + milliseconds;
    },

    /**
     * Begins with the first frame of a link, which is `connected`: one beside the present one replaces it.
     *
     * @param {Link} link
     */
    promote(link) {
      if (link === connections.presentLink) return;
      connections.presentLink?.abort();
      connections.presentLink = link;
      candidate = undefined;
    },

    /**
     * @param {Link} link
     * @param {Frame} frame
     */
    greet(link, frame) {
      link.greet(frame);
      link.beside = settings.transports.indexOf(link.transport) > 0 ? 0 : Infinity;
      tokens.acceptCurrent();
      choice.praise(link);
      connections.expectRenewal(link, frame);
    },

    /**
     * Renews the token after 80 % of the seconds that are left by the clock of the server: that of the page may be wrong.
     * If the renewal is late, the server closes the connection with 4401, and the client reconnects with a fresh token.
     *
     * @param {Link} link
     * @param {Frame} frame
     */
    expectRenewal(link, { expires_in: seconds }) {
      const renews = seconds > 0 && tokens.canRenew && link.transport !== "tabs";
      const pause = Math.max(SOONEST_RENEWAL, 1000 * RENEWED_PART * seconds);
      link.renewal = renews ? performance.now() + pause : Infinity;
      link.doWhatIsDue();
    },

    /**
     * Reacts to an event of the page. `offline` may be wrong, for example with a VPN, so it only pings the server, as the
     * other events do when the last frame is old.
     *
     * @param {string} type
     */
    notice(type) {
      const { presentLink: link } = connections;
      if (type === "visibilitychange" && document.hidden) return;
      if (!link || (type === "online" && !link.connectedAt)) {
        if (type === "online") choice.forgetMisses();
        if (type !== "offline") wait();
      } else if (link.connectedAt && (type === "offline" || link.deadline - Date.now() < link.silence - RECENT_TIME)) {
        link.probe();
      }
    },
  };

  /**
   * Waits for the next attempt.
   *
   * @param {number} [pause] In milliseconds.
   * @param {object} [end] Why the connection has ended.
   */
  const wait = (pause = 0, end = {}) => {
    const milliseconds = Math.max(pause, notBefore - Date.now());
    timer.start(milliseconds, connections.open);
    listener.changeStatus("waiting", { ...end, milliseconds });
  };

  /**
   * @param {string} transport
   * @param {Promise<string | undefined>} [shared] The token of the connection beside.
   */
  const start = (transport, shared) => {
    const facts = {
      transport,
      credentials: settings.credentials,
      bare: choice.isBare(),
      tabPort: tabs.tabPort,
      shared,
    };
    const link = createLink(facts, owner);
    TRANSPORTS[transport](source, link).then((send) => (link.send = send), link.end);
    return link;
  };

  /**
   * Begins a connection that replaces the present one as soon as it is connected.
   *
   * @param {string} transport
   * @param {Promise<string | undefined>} [shared]
   */
  const startBeside = (transport, shared) => {
    log("tries", transport);
    candidate?.abort();
    candidate = start(transport, shared);
  };

  /** @type {import("./link.js").Owner} */
  const owner = {
    takeFrame: listener.takeFrame,

    tryBeside(link) {
      const others = choice.besides(link.transport);
      if (link.connectedAt) {
        link.tries++;
        startBeside(choice.best);
      } else if (link === connections.presentLink && others.length) {
        link.beside = Date.now() + RACE_TIME;
        startBeside(others[link.tries % others.length], link.token());
        link.tries++;
      }
    },

    endSilent(link) {
      if (link.transport === "tabs") tabs.compete(true);
      link.end({ reason: "silent" });
    },

    /** The time limit of a new connection begins when it has its token. */
    async freshToken(link) {
      const begins = !link.connectedAt && link.transport !== "tabs";
      if (begins) link.allow(TOKEN_TIME);
      const token = await tokens.fresh().catch((error) => {
        listener.report(error, "token");
        throw error;
      });
      link.attempted = true;
      if (begins) {
        link.beside = Date.now() + choice.raceTime(link.transport);
        link.allow(HANDSHAKE_TIME);
      }
      return token;
    },

    renewToken(link) {
      log("renews");
      // A failure is reported already. When the token has expired, the server ends the connection.
      if (link.transport === "websocket") renewInBand(link).catch(() => {});
      else startBeside(link.transport);
    },

    followEnd(link, cause) {
      link.abort();
      // Errors of the browser have other codes, and a message.
      const code = cause.code >= FIRST_CODE ? cause.code : LOST;
      log(link.transport, "ends:", code);
      choice.learn(link, code);
      if (connections.presentLink && link !== connections.presentLink) {
        endBeside(connections.presentLink);
      } else if (candidate && !link.connectedAt) {
        // The other transport of the race continues alone.
        connections.presentLink = candidate;
        candidate = undefined;
      } else {
        connections.end();
        goOnAfter(link, { code, reason: cause.reason ?? cause.message ?? "" });
      }
    },
  };

  /** @param {Link} link */
  const renewInBand = async (link) => {
    const known = tokens.current;
    const token = await owner.freshToken(link);
    if (token !== known) link.send?.({ type: "authenticate", token });
  };

  /** @param {Link} link The present one. */
  const endBeside = (link) => {
    candidate = undefined;
    if (link.connectedAt) link.beside = Date.now() + 2 * pauseAfterFailures(link.tries - 1, LONGEST_PAUSE);
    link.doWhatIsDue();
  };

  /**
   * @param {Link} link
   * @param {{ code: number, reason: string }} end
   */
  const goOnAfter = (link, end) => {
    const { refusal, pause } = sequelOf(link, end.code);
    if (end.code === TOO_MANY && link.connectedAt) listener.slowDown();
    if (refusal) listener.refuse(refusal, end);
    else wait(pause, end);
  };

  return connections;
};
