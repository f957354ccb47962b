/**
 * A map of the values of a topic, which follows the messages that change them.
 *
 * @import { Frame } from "../types.js"
 */

/** The type of the messages about members, and the command that changes what they say. */
export const PRESENCE = "presence";

/** @typedef {ReturnType<typeof createView>} View */

/**
 * Returns the view of a topic, or of the messages without one: a `map`, and what changes it.
 *
 * @param {string | undefined} topic
 * @param {boolean} ofMembers Whether it shows the data of the messages about members, instead of the other messages.
 */
export const createView = (topic, ofMembers) => {
  /** By key and then by audience, because each audience has a value of its own: a key shows the newest. */
  const values = new Map();
  const listeners = new Set();
  let isDue = false;

  const map = Object.assign(new Map(), {
    loaded: false,
    /** @param {() => void} changed */
    subscribe(changed) {
      listeners.add(changed);
      return () => listeners.delete(changed);
    },
  });

  const view = {
    /** What the application gets. */
    shown: map,
    topic,
    /** Whether the topic is followed, and whether it was asked for. */
    covered: /** @type {any} */ (false),
    asked: /** @type {any} */ (false),
    /** Whether it must be loaded: at first, and after a loss. */
    stale: true,
    /** The number up to which it includes all messages. */
    through: 0,

    /**
     * Begins again with values that include all messages up to a number, and with the messages since then.
     *
     * @param {Frame[]} all
     * @param {number} number
     * @param {Frame[]} since
     */
    load(all, number, since) {
      map.clear();
      values.clear();
      map.loaded = true;
      view.stale = false;
      view.through = 0;
      all.forEach(view.fold);
      view.through = number;
      since.forEach(view.fold);
      announce();
    },

    /** Changes the map by a message, if it concerns it. @param {Frame} message */
    fold(message) {
      const { type, topics, sequence_number: number } = message;
      const isHere = topic ? topics?.includes(topic) : !topics;
      if (!isHere || (type === PRESENCE) !== ofMembers || number <= view.through) return;
      view.through = number;
      change(message);
      announce();
    },
  };

  /** @param {Frame} message */
  const change = (message) => {
    const { key, topics = [], deleted } = message;
    const audience = `${[...topics].sort()}`;
    const found = values.get(key) ?? new Map();
    const value = joined(found.get(audience), message);
    values.set(key, found);
    found.delete(audience);
    if (!deleted) found.set(audience, value);
    const newest = [...found.values()].pop();
    if (newest) map.set(key, ofMembers ? newest.data : newest);
    else map.delete(key);
  };

  /** Calls the listeners once for all that changes now, each in a task of its own: one that throws stops nothing. */
  const announce = () => {
    if (isDue) return;
    isDue = true;
    queueMicrotask(() => {
      isDue = false;
      listeners.forEach((listener) => queueMicrotask(listener));
    });
  };

  return view;
};

/**
 * Returns a value after a message. Pieces of text are joined to its data, and others listed in `pieces`.
 *
 * @param {Frame | undefined} value
 * @param {Frame} message
 * @returns {Frame}
 */
const joined = (value, message) => {
  if (!message.append) return message;
  const { data, pieces } = value ?? /** @type {any} */ ({});
  const text = data ?? "";
  const isText = !pieces && [text, message.data].every((part) => typeof part === "string");
  return isText
    ? { ...message, data: text + message.data }
    : { ...message, data, pieces: [...(pieces ?? []), message.data] };
};
