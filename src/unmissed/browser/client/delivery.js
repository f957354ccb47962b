/**
 * The way of messages and losses to the application: behind the snapshot that they change, and the first handler.
 *
 * @import { Frame, Message, SnapshotStatus } from "../types.js"
 * @import { Place } from "./decisions.js"
 * @import { Source } from "./link.js"
 * @import { Settings } from "./settings.js"
 */

import { createPositionStore } from "./position_store.js";
import { createSnapshot } from "./snapshot.js";

/**
 * An event of a message or a loss, and the place after it.
 *
 * @typedef {{ type: string, detail: any, place: Place }} Waiting
 */

/** The event of a message has its type after this. */
export const MESSAGE = "message:";
const ALL = "*";

/**
 * What the stream is, and does, for its messages.
 *
 * @typedef {object} Outlet
 * @property {(type: string, detail: any) => void} emit
 * @property {(error: any, during: string) => void} report
 * @property {() => void} reopen Connects from an earlier place.
 */

/**
 * @param {Settings} settings
 * @param {Source} source The place of the connection, which begins with a stored one.
 * @param {Outlet} outlet
 */
export const createDelivery = (settings, source, { emit, report, reopen }) => {
  const { limit, log } = settings;
  const store = createPositionStore(settings, report);
  Object.assign(source, store.load() ?? { position: settings.since, epoch: settings.epoch });
  /**
   * The first events, until the application has its first handler, so that a page may await something between `connect`
   * and `on`. The server sends again what is too much.
   *
   * @type {Waiting[] | undefined}
   */
  let backlog = [];
  /** Where the application is: before the backlog. @type {Place} */
  let place = { ...source };
  let isClosed = false;

  /** Begins again with a snapshot, which includes the messages up to its place. Losses are still reported. */
  const beginAgain = (position = source.position) => {
    backlog = backlog?.filter(({ detail }) => !detail.sequence_number);
    place = { ...source, position };
  };

  /**
   * Goes back to an earlier place, and reconnects: the server sends what follows it, or declares it lost, which needs another
   * snapshot. That one may be as old, because the loss has been declared. The number of a snapshot may be of an earlier
   * epoch, which is then a reset: without an epoch, only the server knows.
   *
   * @param {Place} place
   */
  const rewind = ({ position, epoch, declared }) => {
    log("rewinds", position);
    Object.assign(source, { position, epoch, declared });
    beginAgain();
    reopen();
  };

  const snapshot = createSnapshot(settings, {
    begin: beginAgain,
    /** Delivers the messages that waited for the snapshot, except those that it includes. */
    goOnWith(held, number) {
      source.position = Math.max(/** @type {number} */ (source.position), number);
      beginAgain(number);
      for (const each of held) if (/** @type {number} */ (each.sequence_number) > number) delivery.deliverMessage(each);
      delivery.savePosition();
    },
    rewind,
    change(status, detail) {
      delivery.snapshotStatus = status;
      emit("snapshot", { status, ...detail });
    },
    report,
  });

  const delivery = {
    /** @type {SnapshotStatus | undefined} */
    snapshotStatus: undefined,
    /** The last number that the client has missed. */
    recoveredThrough: 0,
    /** Needs another snapshot, if there is one. */
    startOver: snapshot.hold,

    close() {
      isClosed = true;
      snapshot.close();
    },

    /** Returns where the application is. @returns {Place} */
    place: () => (backlog ? place : source),

    savePosition() {
      if (!snapshot.isLoading() && !backlog && !isClosed) store.save(source);
    },

    /**
     * An ephemeral message, without a number, waits neither for a snapshot nor for the first handler.
     *
     * @param {Frame} frame A message.
     */
    deliverMessage(frame) {
      if (isClosed) return;
      const message = { ...frame, recovered: frame.sequence_number <= delivery.recoveredThrough };
      if (!frame.sequence_number) emitEvent(MESSAGE, message);
      else if (!snapshot.holds(/** @type {Message} */ (message))) delivery.deliverEvent(MESSAGE, message);
    },

    /**
     * @param {string} type `message:`, `gap` or `reset`.
     * @param {any} detail
     */
    deliverEvent(type, detail) {
      const after = { ...source, position: detail.sequence_number ?? source.position };
      if (!backlog) emitEvent(type, detail);
      else if (backlog.length < limit) backlog.push({ type, detail, place: after });
    },

    /** Follows the connection past a frame that is neither a message nor a loss. */
    followSource() {
      if (!backlog?.length) place = { ...source };
    },

    /** Delivers what has waited for the first handler. */
    deliverBacklog() {
      if (!backlog) return;
      const waiting = backlog;
      log("delivers", waiting.length);
      for (const { type, detail, place: after } of waiting) {
        if (isClosed) return;
        place = after;
        if (!snapshot.isLoading()) store.save(place);
        emitEvent(type, detail);
      }
      backlog = undefined;
      if (waiting.length >= limit) rewind(place);
      else delivery.savePosition();
    },
  };

  /**
   * @param {string} type
   * @param {any} detail
   */
  const emitEvent = (type, detail) => {
    if (type !== MESSAGE) emit(type, detail);
    else for (const each of new Set([detail.type, ALL])) emit(type + each, detail);
  };

  return delivery;
};
