/**
 * What follows the end of a connection: a refusal of this client, or another attempt after a pause.
 *
 * @import { Action } from "../types.js"
 * @import { Link } from "./link.js"
 * @import { Tokens } from "./tokens.js"
 * @import { TransportChoice } from "./transport_choice.js"
 */

import { PATIENT_FAILURES, actionAfter, pauseAfterFailures } from "./decisions.js";
import { POSTPONING, TIMED_OUT } from "./failures.js";

/** A connection that lasted this long resets the pauses to short ones. */
const LASTING_TIME = 5000;
/** The most failures that count after a server that accepts and drops: they lead to four seconds. */
const FAILURES_OF_CONNECTED = 3;

/** @type {Partial<Record<Action, "refused" | "unauthorized">>} */
const REFUSALS = { stop: "refused", renew: "unauthorized" };

/**
 * The event with which the stream ends, or the milliseconds before the next attempt.
 *
 * @typedef {{ refusal: "refused" | "unauthorized", pause?: undefined } | { refusal?: undefined, pause: number }} Sequel
 */

/**
 * Returns a function that decides what follows the end of a link with a close code.
 *
 * @param {Tokens} tokens
 * @param {TransportChoice} choice
 * @returns {(link: Link, code: number) => Sequel}
 */
export const createEndings = (tokens, choice) => {
  let failures = 0;

  /**
   * @param {Link} link
   * @param {Action} action
   * @param {number} code
   */
  const pauseAfter = (link, action, code) => {
    const { connectedAt } = link;
    const isMiss = action === "resume" && link.attempted && !connectedAt;
    if (isMiss && choice.miss(link) && !POSTPONING.includes(code)) return 0;
    if (connectedAt && Date.now() - connectedAt > LASTING_TIME) failures = 0;
    const pause = action === "renew" && !failures ? 0 : pauseAfterFailures(failures);
    failures = Math.min(failures + 1, connectedAt ? FAILURES_OF_CONNECTED : PATIENT_FAILURES);
    return pause;
  };

  return (link, code) => {
    // A token that did not arrive was removed on the way, which is no verdict about this client.
    const isVerdict = choice.trusts(link) && !(code === TIMED_OUT && tokens.current);
    const action = isVerdict ? actionAfter(code) : "resume";
    const refusal = REFUSALS[action];
    // Only the server itself closes a WebSocket with such a code.
    const isFinal = action === "stop" && link.transport === "websocket";
    if (refusal && (isFinal || tokens.refuse())) return { refusal };
    return { pause: pauseAfter(link, action, code) };
  };
};
