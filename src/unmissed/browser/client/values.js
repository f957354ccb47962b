/**
 * Values by key, as maps that change: they are loaded, and then follow the messages.
 *
 * @import { Frame } from "../types.js"
 * @import { Source } from "./link.js"
 * @import { View } from "./live_map.js"
 * @import { Settings } from "./settings.js"
 */

import { failureOf } from "./failures.js";
import { requestUrl } from "./http.js";
import { createView } from "./live_map.js";
import { createSnapshot } from "./snapshot.js";

/** A node that is behind the connection is asked again after this time. */
const BEHIND_TIME = 1000;

/**
 * What a stream does for its values.
 *
 * @typedef {object} Outlet
 * @property {() => (string | undefined)[] | undefined} followed Returns the topics of the connection, if there is one, and
 *   undefined for the messages without a topic.
 * @property {(topic: string) => Promise<any>} follow
 * @property {(error: any, during: string) => void} report
 */

/**
 * @param {Settings} settings
 * @param {Source} source
 * @param {Outlet} outlet
 */
export const createValues = (settings, source, { followed, follow, report }) => {
  /** @type {Map<string, View>} */
  const views = new Map();
  /** @type {(held: Frame[], number: number) => void} Changes the maps by what was loaded. */
  let finish;
  /** What the connection has sent of all values, if it sends them. @type {Frame[] | undefined} */
  let chunks;

  const values = {
    /**
     * Returns the map of a topic, or of the messages without one.
     *
     * @param {string} [topic]
     */
    mapOf(topic, ofMembers = false) {
      const name = ofMembers + `${topic}`;
      let view = views.get(name);
      if (!view) {
        view = createView(topic, ofMembers);
        views.set(name, view);
        source.state = true;
        values.refresh();
      }
      return view.shown;
    },

    /**
     * Loads what is stale: maps that are new, or whose topic was not followed, and after a loss all.
     *
     * @param {any} [loss]
     * @param {boolean} [sends] Whether the connection sends all values next.
     */
    refresh(loss, sends) {
      const topics = followed();
      for (const view of views.values()) {
        view.covered = topics?.includes(view.topic);
        if (loss || !view.covered) Object.assign(view, { stale: true, through: 0 });
        view.asked ||= topics && (view.covered || follow(/** @type {string} */ (view.topic)));
      }
      chunks = sends ? [] : undefined;
      if (loader.isLoading() || (!sends && wanted().length)) loader.hold(0);
    },

    /**
     * Takes values that the connection sends before all messages. If it is cut before the last ones, they are loaded.
     *
     * @param {Frame} frame
     */
    takeState(frame) {
      chunks?.push(...frame.values);
      if (chunks && !frame.has_more) for (const view of wanted()) view.load(chunks, frame.sequence_number, []);
    },

    /** @param {Frame} message */
    fold(message) {
      if (!message.key) return;
      loader.holds(/** @type {any} */ (message));
      for (const view of views.values()) view.fold(message);
    },

    close() {
      loader.close();
    },
  };

  const wanted = () => [...views.values()].filter(({ stale, covered }) => stale && covered);

  /**
   * Loads the values of the stale maps over REST, and returns the number up to which they include all messages.
   *
   * @param {typeof fetch} authorized
   * @returns {Promise<number>}
   */
  const loadPages = async (authorized) => {
    const { url, topics, position, declared } = source;
    const least = Math.max(/** @type {number} */ (position), /** @type {number} */ (declared));
    const stale = wanted();
    /** @type {Frame[]} */
    const found = [];
    /** @type {any} */
    let page = {};
    do {
      const after = found.at(-1)?.sequence_number;
      const place = { url, topics, after, through: page.sequence_number };
      const response = await authorized(requestUrl(place, "/websocket/state"));
      if (!response.ok) throw await failureOf(response);
      page = await response.json();
      found.push(...page.values);
    } while (page.has_more);
    if (page.sequence_number < least) {
      // This node is behind the connection.
      await new Promise((resolve) => setTimeout(resolve, BEHIND_TIME));
      return loadPages(authorized);
    }
    finish = (held, number) => {
      for (const view of stale) view.load(found, number, held);
    };
    return page.sequence_number;
  };

  const loader = createSnapshot(
    { ...settings, snapshot: ({ fetch }) => loadPages(fetch) },
    {
      goOnWith: (held, number) => finish(held, number),
      report: (error) => report(error, "state"),
    },
  );

  return values;
};
