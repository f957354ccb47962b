/** What the page says, from facts. */

import { count, duration, messages } from "./format.js";

/** @typedef {import("./receiver.js").Note} Note */

/** @type {Record<string, string>} */
const LIVE = {
  websocket: "Every message arrives as it is published.",
  events: "WebSockets are blocked here: messages arrive as Server-Sent Events.",
  polling: "WebSockets are blocked here: the page asks for messages every few seconds.",
};

/** @type {Record<string, [string, string]>} */
const STATES = {
  connecting: ["Connecting", "Opening a connection to the server."],
  recovering: ["Recovering", "Connected again: receiving what was published while it was away."],
  waiting: ["Disconnected", "Messages go on without this page."],
  unreachable: ["Disconnected", "The server cannot be reached."],
  closed: ["Closed", "This page no longer reconnects."],
};

/**
 * Return the title and the sentence for a state of the connection.
 * @param {string} status @param {string} [transport]
 * @returns {[string, string]}
 */
export function stateWords(status, transport = "websocket") {
  return STATES[status] ?? ["Live", LIVE[transport]];
}

/** Return the countdown to the next attempt. @param {number | undefined} retryAt @param {number} now both in ms */
export function countdown(retryAt, now) {
  return retryAt === undefined
    ? "Reconnecting soon"
    : `Reconnecting in ${Math.max(0, Math.ceil((retryAt - now) / 1000))} s`;
}

/** Return what happened to the stream, as one or two sentences. @param {Note} note */
export function noteWords(note) {
  switch (note.kind) {
    case "dropped":
      return "Connection lost.";
    case "back":
      return back(note);
    case "renewed":
      return `Received ${messages(note.recovered ?? 0)} of the new log ${after(note)}. What the old log held is unknown.`;
    case "gap":
      return gap(note);
    case "reset":
      return reset(note);
    default:
      return `${messages(note.lost ?? 0)} did not arrive, and no gap was announced. This is an error: please report it.`;
  }
}

/** @param {Note} note */
function back(note) {
  const { recovered = 0, lost = 0, exact = true } = note;
  if (recovered === 0 && lost === 0) return `Connected again ${after(note)}. Nothing was missed.`;
  const end = lost === 0 ? "None was lost." : `${exact ? "" : "At least "}${count(lost)} could not be recovered.`;
  return `Recovered ${messages(recovered)} ${after(note)}. ${end}`;
}

/** @param {Note} note */
function after({ seconds }) {
  return seconds === undefined ? "after the page was loaded again" : `after ${duration(seconds)} away`;
}

/** @param {Note} note */
function gap({ from = 0, to = 0, lost = 0, exact }) {
  const numbers = `numbers ${from} to ${to}`;
  const what = exact ? `${lostWords(lost)} (${numbers})` : `messages among the ${numbers} are lost`;
  return `Gap: ${what}. The log had evicted them before this page received them.`;
}

/** @param {Note} note */
function reset({ lost = 0 }) {
  const known = lost > 0 ? ` ${lostWords(lost)}.` : "";
  return `Reset: the server has started with an empty log.${known} An application would load its state again now.`;
}

/**
 * Return how far the log reaches back, and what a drop would do.
 * @param {{reach: number, rate: number}} log seconds, and messages a second
 */
export function reachWords({ reach, rate }) {
  if (rate < 0.5) return `The log keeps a message for ${duration(reach)}.`;
  return `At ${messages(Math.round(rate))} a second, the log reaches ${duration(reach)} back: ${outcome(reach)}.`;
}

/** @param {number} number */
function lostWords(number) {
  return `${messages(number)} ${number === 1 ? "is" : "are"} lost`;
}

/** @param {number} reach */
function outcome(reach) {
  if (reach > 30) return "drops of 5 s and 30 s lose nothing";
  return reach > 5 ? "a drop of 5 s loses nothing, one of 30 s ends in a gap" : "drops of 5 s and 30 s end in a gap";
}
