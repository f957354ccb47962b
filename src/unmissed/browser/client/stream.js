/**
 * The face of the client: what an application holds, and what each frame of the server does to it.
 *
 * @import { Frame, Options, Status, Stream } from "../types.js"
 * @import { Link, Source } from "./link.js"
 */

import { createConnections } from "./connections.js";
import { placeAfter, topicsAfter } from "./decisions.js";
import { MESSAGE, createDelivery } from "./delivery.js";
import { CLOSED, failure } from "./failures.js";
import { messagesOf } from "./loop.js";
import { explainEnd } from "./report.js";
import { createRequests } from "./requests.js";
import { settingsOf } from "./settings.js";
import { createTabGroup } from "./sharing.js";
import { createTokens } from "./tokens.js";
import { createValues } from "./values.js";
import { PRESENCE } from "./live_map.js";

const PAGE_EVENTS = ["online", "offline", "visibilitychange", "pageshow", "resume", "pagehide", "freeze"];
/** A page may be stored, or stopped: then it must have no connection. */
const PAUSING_EVENTS = ["pagehide", "freeze"];

/**
 * Opens a stream.
 *
 * @param {string} url
 * @param {Options} options
 * @returns {Stream}
 */
export const openStream = (url, options) => {
  const settings = settingsOf(url, options);
  const ended = new AbortController();
  /** The types of events that have had a listener. */
  const heard = new Set();
  /** What the server knows of this client, by topic: it forgets it with the connection. @type {Map<string, unknown>} */
  const presences = new Map();
  /** @type {Status} */
  let status = "connecting";
  let begun = false;

  // What happens to the application.

  /**
   * @param {string} type
   * @param {any} detail
   */
  const emit = (type, detail) => {
    if (!type.startsWith(MESSAGE)) settings.log(type, detail);
    stream.dispatchEvent(new CustomEvent(type, { detail }));
  };

  /**
   * @param {Status} present
   * @param {object} [detail]
   */
  const changeStatus = (present, detail) => {
    if (present === status && !detail) return;
    status = present;
    if (tabs.leads) tabs.postData({ status });
    emit("status", { status, ...detail });
  };

  /**
   * @param {any} error
   * @param {string} during What failed: `token`, `snapshot`, `storage` or `connection`.
   */
  const report = (error, during) => {
    settings.log(during, `${error}`);
    emit("error", { error, during });
    // A token that cannot be had is an everyday failure, as without a network.
    if (during !== "token" && !heard.has("error")) reportError(error);
  };

  /**
   * @param {"refused" | "unauthorized"} type
   * @param {{ code: number, reason: string }} end
   */
  const refuse = (type, end) => {
    const error = failure(end.code, end.reason);
    endBecause(error);
    emit(type, end);
    emit("error", { error, during: "connection" });
    if (!heard.has(type) && !heard.has("error")) explainEnd(type, end);
  };

  /** @param {Error} error Why: what waits is rejected with it. */
  const endBecause = (error) => {
    if (status === "closed") return;
    pause();
    delivery.close();
    values.close();
    changeStatus("closed");
    requests.close(error);
    ended.abort(error);
  };

  /** Closes the connection, and gives up the lead of the tabs. */
  const pause = () => {
    tabs.leave();
    connections.end();
  };

  /** Reacts to an event of the page. @param {Event} event */
  const notice = ({ type }) => {
    if (PAUSING_EVENTS.includes(type)) {
      pause();
      changeStatus("waiting", { reason: type });
    } else {
      connections.notice(type);
    }
  };

  /**
   * Reports the failure of a request that the stream makes by itself.
   *
   * @param {Promise<any>} answer
   * @param {string} during
   */
  const attend = (answer, during) => answer.catch((error) => status === "closed" || report(error, during));

  // Frames.

  /**
   * @param {Link} link
   * @param {any} frame
   */
  const takeFrame = (link, frame) => {
    if (!frame?.type) return;
    const before = /** @type {number} */ (source.position);
    const isMessage = Boolean(frame.timestamp);
    connections.promote(link);
    // The answer to a request over HTTP does not show that events arrive.
    if (isMessage || !frame.id) link.heard();
    const loss = movePosition(frame);
    if (!isMessage && frame.added && link.transport !== "tabs") nameTopics(link, frame);
    passOn(link, frame);
    if (isMessage) takeMessage(frame, before);
    else takeNews(link, frame, loss);
  };

  /**
   * @param {Link} link
   * @param {Frame} frame One that is no message.
   * @param {any} loss What it declares, if anything.
   */
  const takeNews = (link, frame, loss) => {
    obeyFrame(link, frame);
    if (loss) delivery.deliverEvent(loss.type, loss);
    else delivery.followSource();
    if (loss || frame.added || frame.type === "connected") {
      // After a loss, the state is cut before it, and pieces that are lost are missing in what follows.
      values.refresh(loss, frame.state && !frame.outcome);
    }
  };

  /**
   * Delivers a message that is new. An ephemeral one, without a number, always is.
   *
   * @param {Frame} message
   * @param {number} before The position before it.
   */
  const takeMessage = (message, before) => {
    if (message.sequence_number <= before) return;
    values.fold(message);
    delivery.deliverMessage(message);
  };

  /**
   * Names all topics in a frame in which the server has named what has changed.
   *
   * @param {Link} link
   * @param {Frame} frame
   */
  const nameTopics = (link, frame) => {
    frame.topics = topicsAfter(link.greeting?.topics ?? source.topics, frame.added, frame.removed);
  };

  /**
   * Passes a frame on to the other tabs, with the position of the link before it.
   *
   * @param {Link} link
   * @param {Frame} frame
   */
  const passOn = (link, frame) => {
    if (tabs.leads) tabs.shareFrame(frame, source.epoch, link.position);
    link.movePosition(frame);
  };

  /** @param {Frame} frame */
  const movePosition = (frame) => {
    const before = source.position;
    const isFirst = frame.type === "connected" && !begun;
    const { loss, ...place } = placeAfter(source, frame);
    Object.assign(source, place);
    begun ||= isFirst;
    if (isFirst || loss) delivery.startOver(Math.min(before ?? Infinity, /** @type {number} */ (source.position)));
    delivery.savePosition();
    return loss;
  };

  /**
   * @param {Link} link
   * @param {Frame} frame
   */
  const obeyFrame = (link, frame) => {
    const { type, added, topics } = frame;
    if (type === "connected") begin(link, frame);
    if (type === "authenticated") connections.expectRenewal(link, frame);
    if (type === "state") values.takeState(frame);
    if (type === "heartbeat") changeStatus("live");
    if (type === "status") changeStatus(frame.status);
    if (type === "reconnect") connections.postpone(frame.after_ms);
    if (added && link.greeting) link.greeting = { ...link.greeting, topics };
    if (type === "following" || (type === "authenticated" && source.topics)) source.topics = topics;
    requests.settle(frame);
  };

  /**
   * @param {Link} link
   * @param {Frame} frame `connected`.
   */
  const begin = (link, frame) => {
    source.topics = frame.chosen ?? source.topics;
    delivery.recoveredThrough = frame.latest;
    connections.greet(link, frame);
    changeStatus(frame.status ?? (frame.outcome ? "recovering" : "live"));
    requests.repeatOn(link, frame.max_age);
    for (const [topic, state] of presences) attend(stream.command(PRESENCE, { topic, state }), PRESENCE);
  };

  /**
   * Answers another tab, for which this one has the connection.
   *
   * @param {Frame} request
   */
  const serve = (request) => {
    if (request.type === "ping") {
      // Not the position of this tab, whose snapshot may be ahead of the connection.
      const { greeting, position } = connections.presentLink ?? {};
      const facts = { outcome: undefined, state: undefined, sequence_number: position, chosen: source.topics, status };
      if (greeting) tabs.shareFrame({ ...greeting, ...facts }, source.epoch, position);
      else tabs.postData({ status });
      connections.notice(request.type);
    } else {
      requests.adoptFrame(request);
    }
  };

  class Face extends EventTarget {
    get status() {
      return status;
    }
    get snapshotStatus() {
      return delivery.snapshotStatus;
    }
    get position() {
      return delivery.place().position;
    }
    get epoch() {
      return delivery.place().epoch;
    }
    get topics() {
      return source.topics;
    }
    get transport() {
      return connections.presentLink?.transport;
    }
    get connectionId() {
      return connections.presentLink?.greeting?.connection_id;
    }

    /**
     * Notices the first handler of messages. What waits for it follows when the present code has added all its handlers.
     *
     * @type {EventTarget["addEventListener"]}
     */
    addEventListener(type, listener_, when) {
      super.addEventListener(type, listener_, when);
      heard.add(type);
      if (type.startsWith(MESSAGE)) queueMicrotask(delivery.deliverBacklog);
    }

    /** @type {Stream["on"]} */
    on(type, handler) {
      const listener_ = (/** @type {any} */ { detail }) => handler(detail);
      stream.addEventListener(MESSAGE + type, listener_);
      return () => stream.removeEventListener(MESSAGE + type, listener_);
    }

    [Symbol.asyncIterator]() {
      return messagesOf(stream, { limit: settings.limit, signal: ended.signal });
    }

    /** @type {Stream["publish"]} */
    publish(/** @type {any} */ message) {
      return requests.add({ type: "publish", message });
    }

    /** @type {Stream["command"]} */
    command(name, data) {
      return requests.add({ type: "command", name, data });
    }

    /** @type {Stream["follow"]} */
    follow(...topics) {
      return requests.add({ type: "follow", topics });
    }

    /** @type {Stream["unfollow"]} */
    unfollow(...topics) {
      return requests.add({ type: "unfollow", topics });
    }

    /** @type {Stream["state"]} */
    state(topic) {
      return /** @type {any} */ (values.mapOf(topic));
    }

    /** @type {Stream["members"]} */
    members(topic) {
      return /** @type {any} */ (values.mapOf(topic, true));
    }

    /** @type {Stream["setPresence"]} */
    async setPresence(topic, state) {
      presences.delete(topic);
      await stream.command(PRESENCE, { topic, state });
      // From now on, it is repeated after each reconnect. Until then, the request is.
      presences.set(topic, state);
    }

    drop(milliseconds = 0) {
      if (status !== "closed") connections.drop(milliseconds);
    }

    close() {
      endBecause(failure(CLOSED, "the stream is closed"));
    }
  }
  /** @type {any} */
  const stream = new Face();

  /** The address, and the place and topics of the connection. @type {Source} */
  const source = { url, topics: options.topics };
  const tokens = createTokens(options.token);
  const requests = createRequests(settings);
  const delivery = createDelivery(settings, source, {
    emit,
    report,
    reopen() {
      if (connections.presentLink) connections.open();
    },
  });
  const values = createValues(settings, source, {
    followed() {
      const greeting = connections.presentLink?.greeting;
      return greeting && [undefined, ...(greeting.topics ?? [])];
    },
    follow: (topic) => attend(stream.follow(topic), "state"),
    report,
  });
  const tabs = createTabGroup(options.shared ? `${settings.key},${options.shared}` : "", {
    reopen: () => connections.open(),
    serve,
  });
  const { slowDown } = requests;
  const listener = { takeFrame, changeStatus, refuse, slowDown, report };
  const connections = createConnections(settings, { source, tokens, tabs }, listener);

  for (const type of PAGE_EVENTS) {
    globalThis.addEventListener?.(type, notice, { capture: true, signal: ended.signal });
  }
  if (options.onMessage) stream.on("*", options.onMessage);
  connections.open();
  return stream;
};
