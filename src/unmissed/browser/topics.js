/**
 * Topics that components change, and maps of topics that they show, while a stream is open.
 *
 * @import { LiveMap, Stream } from "./types.js"
 */

/**
 * Follows the topics that are new, and no longer those that are missing, without another connection. Returns the topics.
 * A refusal is reported, for example of a topic that the token does not grant.
 *
 * @param {Stream} stream
 * @param {string[]} before
 * @param {string[]} topics
 */
export const changeTopics = (stream, before, topics) => {
  const added = topics.filter((topic) => !before.includes(topic));
  const removed = before.filter((topic) => !topics.includes(topic));
  const requests = [added.length && stream.follow(...added), removed.length && stream.unfollow(...removed)];
  for (const request of requests) {
    // A stream that was closed rejects its requests, which is no error here.
    if (request) request.catch((error) => stream.status === "closed" || reportError(error));
  }
  return topics;
};

/**
 * Returns a function that returns a copy of a map, which is another one after each change: frameworks compare what they show.
 * It also returns the function that subscribes to changes.
 *
 * @param {LiveMap<any> | undefined} map
 */
export const copiesOf = (map) => {
  let copy = new Map(map);
  /** @param {() => void} changed */
  const subscribe = (changed) => {
    const update = () => {
      copy = new Map(map);
      changed();
    };
    // It may have changed since the component was rendered.
    if (map?.size !== copy.size) update();
    return map?.subscribe(update) ?? (() => {});
  };
  return { current: () => copy, subscribe };
};
