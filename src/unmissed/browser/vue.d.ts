/**
 * Connects, and returns the stream and a ref of its status. On servers, which render pages, `stream` is undefined.
 *
 * @param {string} url The address of the server, such as `location.origin`.
 * @param {import("./types.js").Options & { onMessage?: (message: import("./types.js").Message) => void }} [options] What
 *   `connect` takes, and a function that is called with every message.
 * @returns {{ stream?: import("./types.js").Stream, status: Readonly<import("vue").Ref<import("./types.js").Status>> }}
 */
export function useUnmissed(url: string, { onMessage, ...options }?: import("./types.js").Options & {
    onMessage?: (message: import("./types.js").Message) => void;
}): {
    stream?: import("./types.js").Stream;
    status: Readonly<import("vue").Ref<import("./types.js").Status>>;
};
