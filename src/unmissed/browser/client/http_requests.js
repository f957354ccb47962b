/**
 * The requests of an application over HTTP, for transports that only receive.
 *
 * @import { Frame } from "../types.js"
 * @import { Link, Source } from "./link.js"
 */

import { topicsAfter } from "./decisions.js";
import { LOST, UNAUTHORIZED, foreignFailure } from "./failures.js";
import { PATH_OF_POSITION, fetched, fetchedPage } from "./http.js";

/**
 * Returns how to send requests over HTTP. They keep their order: each waits for the previous one, and a failure of the
 * network ends the connection, after which all are repeated. An answer becomes a `result` without a sequence number,
 * because it is not in order with the messages and must not move the position. A ping is not sent: it stays unanswered,
 * which leads to another connection. Only if it asks about requests, another request is its answer.
 *
 * @param {Source} source
 * @param {Link} link
 * @returns {import("./link.js").Send}
 */
export const requestsOverHttp = (source, link) => {
  let previous = Promise.resolve();
  return (frame, isForRequests) => {
    if (isForRequests) tryRequest(source, link).catch(link.end);
    if (!frame.id) return;
    const answer = frame.topics ? changeTopics : execute;
    previous = previous.then(() => answer(source, link, frame)).catch((error) => fail(link, frame, error));
  };
};

/**
 * Shows that requests get through. This says nothing about events, whose deadline stays.
 *
 * @param {Source} source
 * @param {Link} link
 */
const tryRequest = async ({ url }, link) => {
  const { deadline } = link;
  await fetchedPage({ url }, link, PATH_OF_POSITION);
  link.waitUntil(deadline);
};

/**
 * Publishes a message, or calls a command.
 *
 * @param {Source} source
 * @param {Link} link
 * @param {Frame} frame
 */
const execute = async (source, link, { id, name, message, data }) => {
  const path = name ? `commands/${encodeURIComponent(name)}` : "messages";
  const isEphemeral = message?.ephemeral;
  const response = await fetched(source, link, path, id, message ?? data, isEphemeral ? "" : id);
  const { timestamp, sequence_number, data: result = sequence_number } = await response.json();
  if ((isEphemeral ? timestamp : result) === undefined) throw foreignFailure();
  link.takeFrame({ type: "result", id, data: result });
};

/**
 * Follows or unfollows topics. Other topics need another request for events, so they end the connection when the server
 * has accepted them.
 *
 * @param {Source} source
 * @param {Link} link
 * @param {Frame} frame
 */
const changeTopics = async (source, link, { id, type, topics }) => {
  const [added, removed] = type === "follow" ? [topics, []] : [[], topics];
  const followed = topicsAfter(source.topics ?? link.greeting.topics, added, removed);
  const page = await fetchedPage({ url: source.url, topics: followed }, link, PATH_OF_POSITION);
  link.takeFrame({ type: "following", id, topics: page.topics });
  if (`${page.topics}` !== `${link.greeting.topics ?? ""}`) link.end();
};

/**
 * Rejects a request that was refused. Other failures end the connection.
 *
 * @param {Link} link
 * @param {Frame} frame
 * @param {any} error
 */
const fail = (link, { id }, error) => {
  if (error.code > LOST && error.code !== UNAUTHORIZED) link.takeFrame({ type: "error", id, ...error });
  else link.end(error);
};
