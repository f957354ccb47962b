/**
 * The last resort, where nothing but short requests gets through.
 *
 * @import { Transport } from "./link.js"
 */

import { recoverOverRest } from "./http.js";
import { requestsOverHttp } from "./http_requests.js";

/** Between two polls: 2 to 5 seconds, at random, so that clients do not poll together. */
const SHORTEST_PAUSE = 2000;
const RANDOM_PAUSE = 3000;

/**
 * Recovers over REST again and again.
 *
 * @type {Transport}
 */
export const openPolling = async (source, link) => {
  const poll = (begun = false) =>
    recoverOverRest(source, link, begun)
      .then(() => setTimeout(poll, SHORTEST_PAUSE + RANDOM_PAUSE * Math.random(), true))
      .catch(link.end);
  poll();
  return requestsOverHttp(source, link);
};
