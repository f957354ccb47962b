/**
 * Which transport is next, by what has worked and what has failed.
 *
 * @import { Link } from "./link.js"
 * @import { Settings } from "./settings.js"
 */

import { attempt } from "./attempt.js";
import { LOST, TIMED_OUT } from "./failures.js";

/** The first attempts of a round go to one transport: fewer, if it has never worked. */
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

/** @typedef {ReturnType<typeof createTransportChoice>} TransportChoice */

/** @param {Settings} settings */
export const createTransportChoice = ({ transports, url }) => {
  const memoryKey = `unmissed:transport:${url}`;
  /** The transport that worked last in this session, perhaps before a reload. A browser may block the storage. */
  const remembered = attempt(() => sessionStorage.getItem(memoryKey));
  /** @type {string | undefined} The one that worked last. */
  let worked;
  // Attempts since then that had a token and no connection.
  let misses = 0;
  // Whether WebSockets send their token in the first frame, and how many in a row have failed.
  let bare = false;
  let failedSockets = 0;

  const choice = {
    best: transports[0],

    /** Whether a tab that does not lead has its own connection, because it cannot recover over REST. */
    alone: false,

    preferred: () => worked ?? transports.find((name) => name === remembered) ?? choice.best,

    /** Returns the transport of the next attempt. A round has several with the preferred one, and one with each other. */
    next() {
      const preferred = choice.preferred();
      const others = choice.besides(preferred);
      const attempts = worked ? FIRST_ATTEMPTS : FIRST_ATTEMPTS_OF_ALL;
      return others[(misses % (attempts + others.length)) - attempts] ?? preferred;
    },

    /** Returns whether the next WebSocket sends its token in the first frame. */
    isBare() {
      const every = worked === "websocket" ? BARE_EVERY_IF_WORKED : BARE_EVERY;
      const isOther = failedSockets % every === every - 1;
      return bare !== isOther;
    },

    besides: (/** @type {string} */ transport) => transports.filter((name) => name !== transport),

    /**
     * Returns how long an attempt is left alone. A server to which all clients reconnect at once is slow, and a transport
     * that has worked will work again.
     *
     * @param {string} transport
     */
    raceTime: (transport) => (transport === worked ? 2 * RACE_TIME : RACE_TIME),

    /**
     * Returns whether a refusal is the server's verdict about this client: on a WebSocket, where only the server sends
     * these close codes, or on a transport that has worked. Otherwise the request may lack cookies, or have met another
     * server.
     *
     * @param {Link} link
     */
    trusts({ transport, connectedAt }) {
      if (transport === "tabs") return false;
      if (transport === "websocket" || connectedAt || transport === worked) return true;
      return !transports.includes("websocket");
    },

    /** @param {Link} link One that is connected. */
    praise({ transport, bare: isBare }) {
      misses = 0;
      choice.alone = false;
      if (transport === "tabs") return;
      if (transport !== worked) attempt(() => sessionStorage.setItem(memoryKey, transport));
      worked = transport;
      if (transport === "websocket") {
        bare = isBare;
        failedSockets = 0;
      }
    },

    /**
     * Learns from a WebSocket that was not connected: a proxy may have removed the subprotocol. Then the handshake fails,
     * or the server waits for a token in vain.
     *
     * @param {Link} link
     * @param {number} code
     */
    learn({ transport, attempted, connectedAt, bare: wasBare }, code) {
      if (transport !== "websocket" || !attempted || connectedAt) return;
      if (code === LOST) failedSockets++;
      if (code === TIMED_OUT) bare = !wasBare;
    },

    /**
     * Returns whether the next attempt follows without a pause: the others are tried in vain wherever only the preferred
     * transport gets through, and must not delay it.
     *
     * @param {Link} link An attempt that failed.
     */
    miss({ transport }) {
      misses++;
      if (transport === "tabs" && misses >= FIRST_ATTEMPTS_OF_ALL) {
        choice.alone = true;
        misses = 0;
      }
      return choice.besides(choice.preferred()).includes(transport);
    },

    /** Begins with the preferred transport again: the network has changed. */
    forgetMisses() {
      misses = 0;
    },
  };
  return choice;
};
