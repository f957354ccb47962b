/**
 * The transport of a tab that does not lead: it receives the frames of the tab that has the connection.
 *
 * @import { Frame, Status } from "../types.js"
 * @import { Link, Source, Transport } from "./link.js"
 */

import { recoverOverRest } from "./http.js";

/** A recovery over REST may take this long. */
const RECOVERY_TIME = 60_000;

/**
 * The status of the leading tab; or a frame of the server, and the place of its connection before the frame.
 *
 * @typedef {{ frame: Frame, status?: undefined, epoch: any, previous: any } | { status: Status, [field: string]: any }} Shared
 */

/**
 * Listens to the leading tab, which a first ping asks for its position.
 *
 * @type {Transport}
 */
export const openTabs = async (source, link) => {
  let begun = false;
  let previous = Promise.resolve();
  link.tabPort.onmessage = (/** @type {MessageEvent} */ { data }) => {
    const { frame, status } = data;
    if (link.signal.aborted || !(status || frame)) return;
    link.heard();
    begun ||= frame?.type === "connected";
    if (status || begun) previous = previous.then(() => takeShared(source, link, data)).catch(link.end);
  };
  /** @type {import("./link.js").Send} */
  const send = (request) => link.tabPort.postMessage({ request });
  send({ type: "ping" });
  return send;
};

/**
 * Takes a frame of the leading tab. A tab whose position is below that of the connection before the frame has a hole,
 * which it fills over REST. This happens when a leader begins, and while two tabs believe that they lead.
 *
 * @param {Source} source
 * @param {Link} link
 * @param {Shared} shared
 */
const takeShared = async (source, link, { frame, status, epoch, previous }) => {
  if (status) {
    link.takeFrame({ type: "status", status });
    return;
  }
  const position = () => /** @type {number} */ (source.position);
  const isBehind = () => position() < previous || (source.epoch ?? epoch) !== epoch;
  const timer = setTimeout(link.end, RECOVERY_TIME);
  const wasBehind = isBehind();
  if (wasBehind) await recoverOverRest(source, link, false, previous);
  clearTimeout(timer);
  if (isBehind()) link.end();
  // Over REST, this tab had its own gap or reset: that of the leader is another one.
  if (wasBehind && frame.type === "connected") link.takeFrame({ ...frame, outcome: frame.outcome && "complete" });
  else link.takeFrame(frame);
};
