/** What the views for operators say, from facts. */

import { count } from "./format.js";

/** Return how many there are, and how many of them match. @param {number} matching @param {number} total */
export function totalWords(matching, total) {
  return matching === total ? count(total) : `${count(matching)} of ${count(total)}`;
}

/** Return for whom a message is. @param {{everyone: boolean, topics: string[], users: string[]}} audience */
export function audienceWords({ everyone, topics, users }) {
  if (everyone) return "everyone";
  const named = users.length === 0 ? [] : [`${users.length === 1 ? "user" : "users"} ${users.join(", ")}`];
  return [...topics, ...named].join(", ") || "nobody";
}

/** @type {Record<string, string>} */
const CODES = {
  1000: "closed by the application",
  1001: "going away",
  1005: "closed without a code",
  1006: "connection lost",
  1009: "frame too large",
  1011: "server failed",
  1012: "server restarts",
  1013: "log unavailable",
  4400: "bad message",
  4401: "token missing, invalid or expired",
  4403: "topic or origin not allowed",
  4408: "no authentication in time",
  4429: "too many connections or messages",
};

/** Return what a close code means, or an empty text. @param {string | number | null} code */
export function codeWords(code) {
  return CODES[String(code)] ?? "";
}

/** @type {Record<import("./api.js").Kind, string>} */
export const KIND_TITLES = { gap: "Gaps", reset: "Resets", stall: "Stalls", close: "Closes", refused: "Refusals" };

/** Return what has happened. @param {import("./api.js").Entry} entry */
export function entryWords({ kind, from, to, status, request, count: times }) {
  switch (kind) {
    case "gap":
      return from === null || to === null ? "Gap" : `Gap: up to ${count(to - from + 1)} lost`;
    case "reset":
      return "Reset: another epoch";
    case "stall":
      return "Stalled, disconnected";
    case "close":
      return "Closed";
    default:
      return `Refused${request ? ` ${request}` : ""}${status === null ? "" : ` (${status})`}${times > 1 ? `, ${count(times)} times` : ""}`;
  }
}

/** Return why it has happened, as far as that is known. @param {import("./api.js").Entry} entry */
export function reasonWords({ kind, from, to, reason, code }) {
  if (kind === "gap" && from !== null && to !== null) {
    return `of the numbers ${from} to ${to}, the log had evicted some`;
  }
  if (kind === "reset" && from !== null) return `the client came with the position ${from}`;
  return reason || codeWords(code);
}
