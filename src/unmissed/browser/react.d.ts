/**
 * Connects, and returns the stream and its status, which renders the component again. `stream` is undefined before the
 * first effect, and on servers. Options are read when the stream is opened.
 *
 * @param {string} url The address of the server, such as `location.origin`.
 * @param {import("./types.js").Options & { onMessage?: (message: import("./types.js").Message) => void }} [options] What
 *   `connect` takes, and a function that is called with every message.
 * @returns {{ stream: import("./types.js").Stream | undefined, status: import("./types.js").Status }}
 */
export function useUnmissed(url: string, options?: import("./types.js").Options & {
    onMessage?: (message: import("./types.js").Message) => void;
}): {
    stream: import("./types.js").Stream | undefined;
    status: import("./types.js").Status;
};
