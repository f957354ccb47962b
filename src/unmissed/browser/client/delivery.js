/**
 * The way of messages and losses to the application: behind the snapshot that they change, and the first handler.
 *
 * @import { Frame, Message, SnapshotStatus } from "../types.js"
 * @import { Place } from "./decisions.js"
 * @import { Source } from "./link.js"
 * @import { Settings } from "./settings.js"
 */

import { createBacklog } from "./backlog.js";
import { createPositionStore } from "./position_store.js";
import { createSnapshot } from "./snapshot.js";

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
  const { log } = settings;
  const store = createPositionStore(settings, report);
  Object.assign(source, store.load() ?? { position: settings.since, epoch: settings.epoch });
  /** Until the application has its first handler. @type {ReturnType<typeof createBacklog> | undefined} */
  let backlog = createBacklog(source, settings.limit);
  let isClosed = false;

  /**
   * Goes back to an earlier place, and reconnects: the server sends what follows it, or declares it lost, which needs another
   * snapshot. That one may be as old, because the loss has been declared. The number of a snapshot may be of an earlier
   * epoch, which is then a reset: without an epoch, only the server knows.
   *
   * @param {Place} place
   */
  const rewind = ({ position, epoch }) => {
    log("rewinds to", position);
    Object.assign(source, { position, epoch });
    backlog?.beginAgain(source);
    reopen();
  };

  const snapshot = createSnapshot(settings, {
    begin: () => backlog?.beginAgain(source),
    /** Delivers the messages that waited for the snapshot, except those that it includes. */
    goOnWith(held, number) {
      source.position = Math.max(/** @type {number} */ (source.position), number);
      backlog?.beginAgain({ ...source, position: number });
      for (const each of held) if (each.sequence_number > number) delivery.deliverMessage(each);
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
    place: () => backlog?.place ?? source,

    savePosition() {
      if (!snapshot.isLoading() && !backlog && !isClosed) store.save(source);
    },

    /** @param {Frame} frame A message. */
    deliverMessage(frame) {
      if (isClosed) return;
      const message = { ...frame, recovered: frame.sequence_number <= delivery.recoveredThrough };
      if (!snapshot.holds(/** @type {Message} */ (message))) delivery.deliverEvent(MESSAGE, message);
    },

    /**
     * @param {string} type `message:`, `gap` or `reset`.
     * @param {any} detail
     */
    deliverEvent(type, detail) {
      const place = { ...source, position: detail.sequence_number ?? source.position };
      if (backlog) backlog.add({ type, detail, place });
      else emitEvent(type, detail);
    },

    /** Follows the connection past a frame that is neither a message nor a loss. */
    followSource: () => backlog?.follow(source),

    /** Delivers what has waited for the first handler. */
    deliverBacklog() {
      if (!backlog) return;
      const { waitingEvents, isIncomplete } = backlog;
      log("delivers", waitingEvents.length, "that waited");
      for (const { type, detail, place } of waitingEvents) {
        if (isClosed) return;
        backlog.place = place;
        if (!snapshot.isLoading()) store.save(place);
        emitEvent(type, detail);
      }
      const { place } = backlog;
      backlog = undefined;
      if (isIncomplete) rewind(place);
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
