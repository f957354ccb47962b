/**
 * Requests over HTTP: how the transports other than WebSockets reach the server, and recover over REST.
 *
 * @import { Source } from "./link.js"
 * @import { Link } from "./link.js"
 */

import { failureOf, foreignFailure } from "./failures.js";

const JSON_TYPE = "application/json";
const EVENTS_TYPE = "text/event-stream";

/** The path that answers with the position alone: the messages themselves are not needed. */
export const PATH_OF_POSITION = "messages?limit=1";

/**
 * Returns the URL of a path of the server. Its query has the position, topics and other fields of a source.
 *
 * @param {any} source A `Source`.
 * @param {string} path
 */
export const requestUrl = ({ url, position: since, epoch, topics, state, after, through }, path) => {
  const target = new URL(url.replace(/\/?$/, path));
  for (const [name, value] of Object.entries({ since, epoch, topics, state, after, through })) {
    if (value !== undefined) target.searchParams.set(name, /** @type {string} The method converts it. */ (value));
  }
  return target.href;
};

/**
 * Returns the response to a request. Rejects with a `Cause`.
 *
 * @param {Source} source
 * @param {Link} link
 * @param {string} path Below `/websocket/`.
 * @param {string} [id] That of a request of the application, which has a `body`.
 * @param {any} [body]
 * @param {string} [key] With which it may be repeated.
 * @returns {Promise<any>}
 */
export const fetched = async (source, link, path, id, body, key = id) => {
  const token = await link.token();
  const response = await fetch(requestUrl(id ? { url: source.url } : source, `/websocket/${path}`), {
    method: id ? "POST" : "GET",
    credentials: link.credentials,
    headers: {
      ...(token && { Authorization: `Bearer ${token}` }),
      ...(id && { "Content-Type": JSON_TYPE }),
      ...(key && { "Idempotency-Key": key }),
    },
    body: JSON.stringify(body),
    signal: link.signal,
  });
  const type = response.headers.get("Content-Type");
  if (response.ok && type?.startsWith(path === "events" ? EVENTS_TYPE : JSON_TYPE)) return response;
  throw await failureOf(response, id);
};

/**
 * Returns the answer to a request for messages. Rejects with a `Cause` if it did not come from the server.
 *
 * @param {Source} source
 * @param {Link} link
 * @param {string} path
 */
export const fetchedPage = async (source, link, path) => {
  const page = await (await fetched(source, link, path)).json();
  if (!Array.isArray(page?.messages) || !Number.isSafeInteger(page.sequence_number)) throw foreignFailure();
  return page;
};

/**
 * Recovers over REST, as the frames of a connection that resumes: `connected` (omitted if it has `begun` and there is no
 * reset), `gap`, the messages up to the number `through`, and `heartbeat`. A new client gets its position alone.
 *
 * @param {Source} source
 * @param {Link} link
 * @returns {Promise<void>}
 */
export const recoverOverRest = async (source, link, begun = false, through = Infinity) => {
  if (source.position === undefined) {
    const page = await fetchedPage(source, link, PATH_OF_POSITION);
    link.takeFrame({ ...page, outcome: undefined, type: "connected", sequence_number: page.latest });
    return;
  }
  const page = await fetchedPage(source, link, "messages");
  const { outcome, messages, sequence_number: end } = page;
  if (!begun || outcome !== "complete") link.takeFrame(beginningOf(page, source.position, begun));
  for (const message of messages) if (message.sequence_number <= through) link.takeFrame(message);
  const hasMore = page.has_more && end < through;
  // The position after a page may be that of a message for others.
  link.takeFrame({ type: hasMore ? "page" : "heartbeat", sequence_number: Math.min(end, through) });
  if (hasMore) await recoverOverRest(source, link, true, through);
};

/**
 * Returns the frame with which a page begins. After a reset, the numbers may be below the position.
 *
 * @param {any} page
 * @param {number} position
 * @param {boolean} begun
 */
const beginningOf = ({ messages: [message], ...page }, position, begun) => {
  const { outcome, sequence_number: end } = page;
  const start = message ? message.sequence_number - 1 : end;
  const type = begun && outcome === "gap" ? outcome : "connected";
  return { ...page, type, sequence_number: outcome === "reset" ? start : position };
};
