/** A React hook. The stream lives as long as the component; it is opened again when the address or the `key` changes. */

import { useEffect, useRef, useState } from "react";

import { connect } from "./unmissed.js";

/**
 * Connects, and returns the stream and its status, which renders the component again. `stream` is undefined before the
 * first effect, and on servers. Options are read when the stream is opened.
 *
 * @param {string} url The address of the server, such as `location.origin`.
 * @param {import("./types.js").Options & { onMessage?: (message: import("./types.js").Message) => void }} [options] What
 *   `connect` takes, and a function that is called with every message.
 * @returns {{ stream: import("./types.js").Stream | undefined, status: import("./types.js").Status }}
 */
export function useUnmissed(url, options = {}) {
  const [stream, setStream] = useState(/** @type {import("./types.js").Stream | undefined} */ (undefined));
  const [status, setStatus] = useState(/** @type {import("./types.js").Status} */ ("connecting"));
  const latest = useRef(options);

  useEffect(() => void (latest.current = options));
  useEffect(() => {
    const opened = connect(url, { ...latest.current, onMessage: (message) => latest.current.onMessage?.(message) });
    opened.addEventListener("status", () => setStatus(opened.status));
    setStatus(opened.status);
    setStream(opened);
    return () => opened.close();
  }, [url, options.key]);

  return { stream, status };
}
