/**
 * The preferred transport.
 *
 * @import { Transport } from "./link.js"
 */

import { parsedJson } from "./decisions.js";
import { requestUrl } from "./http.js";

/** A browser may fire `error` without `close`, for example because of a Content-Security-Policy. */
const CLOSE_TIME = 250;

/**
 * Opens a WebSocket. Its token is a subprotocol, because browsers cannot set headers, or, if the link is `bare`, the
 * first frame.
 *
 * @type {Transport}
 */
export const openWebSocket = async (source, link) => {
  const token = await link.token();
  link.signal.throwIfAborted();
  const url = requestUrl(source, "/ws").replace("http", "ws");
  const socket = new WebSocket(url, token && !link.bare ? ["unmissed.bearer", token] : []);
  /** @type {import("./link.js").Send} */
  const send = (frame) => socket.send(JSON.stringify(frame));
  socket.onopen = () => {
    // Without the subprotocol in the answer, the server may not have received it.
    if (token && !socket.protocol) send({ type: "authenticate", token });
  };
  socket.onerror = () => setTimeout(link.end, CLOSE_TIME);
  socket.onmessage = ({ data }) => link.takeFrame(parsedJson(data));
  socket.onclose = link.end;
  link.signal.onabort = () => socket.close();
  return send;
};
