/**
 * What `connect` takes besides the address of the server.
 */
export type Options = {
    /**
     * A JWT, or a function that returns a fresh one. It is called
     * for every attempt to connect, and again before the token expires. It may take five minutes, for example while a user
     * logs in. If it fails, it is called again after a pause. If its tokens are refused for half a minute, the stream ends
     * with `unauthorized`. Omit it if cookies authenticate.
     */
    token?: string | (() => string | Promise<string>) | undefined;
    /**
     * Whether requests over HTTP send cookies; by default `same-origin`. `include`
     * is needed if cookies authenticate at a server of another origin, which must list the origin of the page in
     * `UNMISSED_ALLOWED_ORIGINS`. WebSockets always send cookies.
     */
    credentials?: RequestCredentials | undefined;
    /**
     * The topics to follow; by default all that the token grants by name.
     */
    topics?: string[] | undefined;
    /**
     * Start after this sequence number instead of with the next message. 0 starts with everything
     * that the server retains.
     */
    since?: number | undefined;
    /**
     * The epoch of `since`.
     */
    epoch?: string | undefined;
    /**
     * Stores the position, which replaces `since`: with `sessionStorage`, a tab continues after
     * a reload. Use `localStorage` only with a single tab: several would overwrite each other's position.
     */
    storage?: Storage | undefined;
    /**
     * The key in `storage`; by default `unmissed:`, the address of the server, and the topics. Each
     * stream of a page needs its own.
     */
    key?: string | undefined;
    /**
     * Use one connection for all tabs of this origin with the same address, key and
     * topics, and the same name if this is a string. They must belong to the same user. Without HTTPS, browsers have no
     * locks, and every tab has its own connection.
     */
    shared?: string | boolean | undefined;
    /**
     * Loads the state that the messages change. It is
     * called after the first connect, and after every `gap` and `reset`. Messages wait until it has finished. If it returns the
     * number of the last message in the state, the messages after that number follow. If the state is older than the connection,
     * the stream recovers the messages in between. 0 is the start of the log. If the function fails, takes too long, or returns
     * anything but a sequence number or nothing, the error is reported, and it is called again after a pause.
     */
    snapshot?: ((context: SnapshotContext) => Promise<number | void>) | undefined;
    /**
     * How many milliseconds `snapshot` may take: 30,000.
     */
    snapshotTimeout?: number | undefined;
    /**
     * Is called with every message, as a handler of `on("*")`.
     */
    onMessage?: ((message: Message) => void) | undefined;
    /**
     * Write every decision of the stream to `console.debug`. The item `unmissed` of `localStorage` does
     * so for all streams of a page, if it is `debug`.
     */
    debug?: boolean | undefined;
    /**
     * How to connect, the best first; by default all three
     * in this order. The one that worked last is tried first, and another one if it fails several times or does not answer
     * in 3 seconds (6, if it has worked). While another one is used, the best one is tried again.
     */
    transports?: ("websocket" | "events" | "polling")[] | undefined;
    /**
     * The most requests that may be unanswered, and messages that may wait for a snapshot, or for the
     * first handler: 1,000. Further requests are rejected. After further messages, the snapshot is loaded again, or the server
     * sends them again. A `for await` loop may be behind by 20 times as many messages, before it throws an error.
     */
    limit?: number | undefined;
};
/**
 * What a snapshot function gets: a `fetch` that sends the token of the stream to its server, and to no other; and a signal
 * that is aborted when its time is over, or the stream is closed.
 */
export type SnapshotContext = {
    fetch: typeof fetch;
    signal: AbortSignal;
};
/**
 * What has become of a snapshot. `failed`: it is loaded again after a pause.
 */
export type SnapshotStatus = "loading" | "loaded" | "failed";
/**
 * What a stream is doing. `recovering`: it is connected, and receives what it missed. `waiting`: until the next attempt.
 */
export type Status = "connecting" | "recovering" | "live" | "waiting" | "closed";
/**
 * A message. `recovered` is true if it was missed and came with a reconnect. Fields that its publisher added are kept.
 */
export type Message = {
    type: string;
    sequence_number: number;
    timestamp: string;
    data?: any;
    topics?: string[];
    recovered: boolean;
    [field: string]: any;
};
/**
 * A connection that reconnects by itself, and resumes from its position. It has these events:
 *
 * - `status`: `detail.status` is the new one, for `waiting` with `code`, `reason`, and the `milliseconds` of the pause
 * - `gap`: the messages `detail.from` to `detail.to` are lost
 * - `reset`: the server lost its log, so what was missed is unknown; `detail.epoch` is the new epoch
 * - `unauthorized`: fresh tokens were refused for half a minute, and the stream is closed
 * - `refused`: the server does not accept this client, and the stream is closed. `detail.code` is a close code, or 4000 and
 *   an HTTP status; `detail.reason` explains it. A refusal over HTTP counts if it lasts for half a minute
 * - `snapshot`: `detail.status` is its new status, for `loaded` with the `number` after which the messages follow
 * - `error`: `detail.error` is why something failed, and `detail.during` what: `token`, `snapshot`, `storage`, or
 *   `connection` when the stream has ended
 *
 * Requests are repeated after a reconnect, and executed once: the server remembers the requests that it has executed. If
 * the answer was lost and the client was away for too long, the server may have forgotten the request: the code is 4408.
 * Requests are rejected with an error that has a `code` and a `detail`.
 *
 * `position` and `epoch` are the present position. `topics` are the followed topics, if any were chosen; otherwise the
 * stream follows all that the token grants by name. `transport` and `connectionId` are the transport in use, and the id
 * under which the server lists the connection.
 */
export type Stream = {
    addEventListener(type: "status" | "gap" | "reset" | "unauthorized" | "refused" | "snapshot" | "error", listener: (event: any) => void, options?: boolean | AddEventListenerOptions): void;
    readonly status: Status;
    readonly snapshotStatus?: SnapshotStatus;
    readonly position?: number;
    readonly epoch?: string;
    readonly topics?: string[];
    readonly transport?: string;
    readonly connectionId?: string;
    on: On;
    publish: Publish;
    command: Command;
    follow: Follow;
    unfollow: Follow;
    drop: Drop;
    close: () => void;
} & EventTarget & AsyncIterable<Message>;
/**
 * Connects to a server, such as `https://api.example.com`, or `/` for the origin of the page, and returns at once. The path is
 * that under which the application is mounted. Throws TypeError if no server can have this address.
 */
export type Connect = (url: string | URL, options?: Options) => Stream;
/**
 * Calls a function with every message of a type, or of all types for `"*"`. Returns a function that removes it.
 */
export type On = (type: string, handler: (message: Message) => void) => () => void;
/**
 * Publishes a message, and returns a promise of its sequence number.
 */
export type Publish = (message: {
    type: string;
    data?: any;
    users?: string[];
    topics?: string[];
    [field: string]: any;
}) => Promise<number>;
/**
 * Calls a command of the application, and returns a promise of its result.
 */
export type Command = (name: string, data?: any) => Promise<any>;
/**
 * Follows more topics, or fewer, and returns a promise of all that are followed.
 */
export type Follow = (...topics: string[]) => Promise<string[]>;
/**
 * Drops the connection, as a network failure would, and reconnects after these milliseconds at the earliest.
 */
export type Drop = (milliseconds?: number) => void;
/**
 * What the server sends: a message, or a frame such as `connected`.
 */
export type Frame = {
    type: string;
    [field: string]: any;
};
/**
 * The first frame: where delivery starts, and how complete the recovery is. `oldest` and `latest` are as over REST, and
 * `sequence_number` is the position from which you start. There is an `outcome` if you sent `since`, `topics` if you
 * follow any, and `expires_at` and `expires_in` if your token expires. Use `expires_in` where your clock may be wrong.
 * Requests beyond `rate` and `burst` are refused.
 */
export type ConnectedFrame = {
    type: "connected";
    connection_id: string;
    oldest: number;
    latest: number;
    sequence_number: number;
    epoch: string;
    /**
     * The number with which this epoch began.
     */
    first: number;
    /**
     * Seconds between two heartbeats.
     */
    heartbeat_seconds: number;
    /**
     * Seconds that messages and answers are retained.
     */
    max_age: number;
    /**
     * Requests a second that you may send on average.
     */
    rate: number;
    /**
     * Requests that you may send at once.
     */
    burst: number;
    outcome?: "gap" | "reset" | "complete" | undefined;
    topics?: string[] | undefined;
    /**
     * Unix time in seconds.
     */
    expires_at?: number | undefined;
    /**
     * Seconds until the token expires, by the clock of the server.
     */
    expires_in?: number | undefined;
};
/**
 * The position of a client that is up to date. It comes once you are up to date after a resume, and every
 * `heartbeat_seconds`. A client that receives nothing for 2.5 times as long considers the connection lost.
 */
export type HeartbeatFrame = {
    type: "heartbeat";
    sequence_number: number;
};
/**
 * Messages that are lost. You were too slow: the log evicted `from` to `to` before you had read them. `sequence_number`
 * is `to`.
 */
export type GapFrame = {
    type: "gap";
    from: number;
    to: number;
    sequence_number: number;
};
/**
 * The server restarts: reconnect after a delay. `after_ms` is in milliseconds.
 */
export type ReconnectFrame = {
    type: "reconnect";
    after_ms: number;
};
/**
 * A frame of the client was refused, or a request failed. `code` is a close code, and `id` that of the frame, if it had
 * one.
 */
export type ErrorFrame = {
    type: "error";
    id?: string | undefined;
    code: number;
    detail: string;
};
/**
 * The answer to ping.
 */
export type PongFrame = {
    type: "pong";
};
/**
 * The answer to a renewed token, with the topics that it added and removed. `sequence_number` is your position.
 * `expires_at` and `expires_in` are as in `connected`.
 */
export type AuthenticatedFrame = {
    type: "authenticated";
    added: string[];
    removed: string[];
    sequence_number: number;
    /**
     * Unix time in seconds.
     */
    expires_at?: number | undefined;
    /**
     * Seconds until the token expires, by the clock of the server.
     */
    expires_in?: number | undefined;
};
/**
 * The answer to follow and unfollow: the topics that it added or removed. `added` are those that you did not follow
 * before, and `removed` those that you no longer follow. `sequence_number` is your position. There is an `outcome` if
 * the request had `since`.
 */
export type FollowingFrame = {
    type: "following";
    added: string[];
    removed: string[];
    sequence_number: number;
    outcome?: "gap" | "reset" | "complete" | undefined;
    id?: string | undefined;
};
/**
 * The answer to publish. `sequence_number` is that of the message. It comes after all that you see up to this number.
 */
export type PublishedFrame = {
    type: "published";
    id: string;
    sequence_number: number;
};
/**
 * The answer to command.
 */
export type ResultFrame = {
    type: "result";
    id: string;
    data: any;
};
/**
 * Asks for pong.
 */
export type PingFrame = {
    type: "ping";
};
/**
 * The first frame without a token in the handshake; later, a renewed token. The token is used from now on, and must be
 * for the same user. Topics that it does not grant are no longer followed; if you neither chose nor unfollowed topics,
 * you follow all that it grants by name. Answered by `authenticated`.
 */
export type AuthenticateFrame = {
    type: "authenticate";
    token: string;
};
/**
 * Follow topics, too. You receive their messages from your position on. With `since`, their messages after it come
 * first, except those that you have seen, and then `following` with the `outcome`; their numbers are at or below your
 * position. If `since` is ahead of your node, the frame waits until the node has caught up, or is answered with an
 * `error`.
 */
export type FollowFrame = {
    type: "follow";
    topics: string[];
    since?: number | undefined;
    epoch?: string | undefined;
    id?: string | undefined;
};
/**
 * Stop following topics. Answered by `following`.
 */
export type UnfollowFrame = {
    type: "unfollow";
    topics: string[];
    id?: string | undefined;
};
/**
 * Publish a message. Repeating an id publishes nothing. The message is as for `POST` (scope `messages:publish`).
 * Answered by `published`, or `error`, and a repeated id like the first time.
 */
export type PublishFrame = {
    type: "publish";
    id: string;
    message: {
        type: string;
        [field: string]: any;
    };
};
/**
 * Call a command of the application. A repeated id is not executed again. Answered by `result` or `error`, and a
 * repeated id like the first time.
 */
export type CommandFrame = {
    type: "command";
    id: string;
    name: string;
    data?: any;
};
/**
 * A frame that the server sends besides messages.
 */
export type ServerFrame = ConnectedFrame | HeartbeatFrame | GapFrame | ReconnectFrame | ErrorFrame | PongFrame | AuthenticatedFrame | FollowingFrame | PublishedFrame | ResultFrame;
/**
 * A frame that a client sends.
 */
export type ClientFrame = PingFrame | AuthenticateFrame | FollowFrame | UnfollowFrame | PublishFrame | CommandFrame;
/**
 * What a client does after a close code. `stop`: do not reconnect. `renew`: reconnect with a new token. `slow`:
 * reconnect later, with backoff. `resume`: reconnect with jitter, and resume.
 */
export type Action = "stop" | "renew" | "slow" | "resume";
/**
 * What a client does after each close code. It resumes after all others.
 */
export type Actions = {
    1000?: "resume";
    1001?: "resume";
    1005?: "resume";
    1006?: "resume";
    1007?: "resume";
    1009: "stop";
    1011?: "resume";
    1012?: "resume";
    1013?: "resume";
    4400: "stop";
    4401: "renew";
    4403: "stop";
    4408: "renew";
    4429: "slow";
} & Record<number, Action>;
