/**
 * Server-Sent Events, read with `fetch`, because an `EventSource` can neither send a token nor show a refusal.
 *
 * @import { Transport } from "./link.js"
 */

import { parsedJson } from "./decisions.js";
import { failure } from "./failures.js";
import { fetched } from "./http.js";
import { requestsOverHttp } from "./http_requests.js";

const DATA = "data:";

/**
 * Returns a function that reads Server-Sent Events in pieces of any size, and passes on their frames. An event of the
 * server has one line of data.
 *
 * @param {(frame: any) => void} take
 * @returns {(piece: string) => void}
 */
export const eventParser = (take) => {
  let rest = "";
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith(DATA)) take(parsedJson(line.slice(DATA.length)));
  };
};

/**
 * Opens a response of events. Its frames are those of a WebSocket, and in a frame `error` the reason of its end.
 *
 * @type {Transport}
 */
export const openEvents = async (source, link) => {
  const { body } = await fetched(source, link, "events");
  const write = eventParser((frame) => {
    if (frame?.type === "error") link.end(failure(frame.code, frame.detail));
    else link.takeFrame(frame);
  });
  body.pipeThrough(new TextDecoderStream()).pipeTo(new WritableStream({ write })).then(link.end, link.end);
  return requestsOverHttp(source, link);
};
