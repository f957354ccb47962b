/**
 * What happens before an application has its first handler waits here, so that a page may await something between `connect`
 * and `on`.
 *
 * @import { Place } from "./decisions.js"
 */

/**
 * An event of a message or a loss, and the place after it.
 *
 * @typedef {{ type: string, detail: any, place: Place }} Waiting
 */

/** @typedef {ReturnType<typeof createBacklog>} Backlog */

/**
 * @param {Place} start
 * @param {number} limit
 */
export const createBacklog = (start, limit) => {
  const backlog = {
    /** @type {Waiting[]} */
    waitingEvents: [],
    /** Where the application is: before what waits. */
    place: { ...start },
    /** Whether something was dropped, because it was too much: then the server has to send it again. */
    isIncomplete: false,

    /**
     * Follows the connection while nothing waits.
     *
     * @param {Place} place
     */
    follow(place) {
      if (!backlog.waitingEvents.length && !backlog.isIncomplete) backlog.place = { ...place };
    },

    /** @param {Waiting} event */
    add(event) {
      backlog.isIncomplete ||= backlog.waitingEvents.length >= limit;
      if (backlog.isIncomplete) backlog.waitingEvents = [];
      else backlog.waitingEvents.push(event);
    },

    /**
     * Begins again with a snapshot, which includes the messages up to a place. Losses are still reported.
     *
     * @param {Place} place
     */
    beginAgain(place) {
      backlog.waitingEvents = backlog.waitingEvents.filter(({ detail }) => !detail.sequence_number);
      backlog.isIncomplete = false;
      backlog.place = { ...place };
    },
  };
  return backlog;
};
