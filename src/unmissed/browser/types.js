/**
 * The types of unmissed.js, which imports them only in type comments: browsers never load this file.
 */

/**
 * What `connect` takes besides the address of the server.
 *
 * @typedef {object} Options
 * @property {string | (() => string | Promise<string>)} [token] A JWT, or a function that returns a fresh one. It is called
 *   for every attempt to connect, and again before the token expires. It may take five minutes, for example while a user
 *   logs in. If it fails, it is called again after a pause. If its tokens are refused for half a minute, the stream ends
 *   with `unauthorized`. Omit it if cookies authenticate.
 * @property {RequestCredentials} [credentials] Whether requests over HTTP send cookies; by default `same-origin`. `include`
 *   is needed if cookies authenticate at a server of another origin, which must list the origin of the page in
 *   `UNMISSED_ALLOWED_ORIGINS`. WebSockets always send cookies.
 * @property {string[]} [topics] The topics to follow; by default all that the token grants by name.
 * @property {number} [since] Start after this sequence number instead of with the next message. 0 starts with everything
 *   that the server retains.
 * @property {string} [epoch] The epoch of `since`.
 * @property {Storage} [storage] Stores the position, which replaces `since`: with `sessionStorage`, a tab continues after
 *   a reload. Use `localStorage` only with a single tab: several would overwrite each other's position.
 * @property {string} [key] The key in `storage`; by default `unmissed:`, the address of the server, and the topics. Each
 *   stream of a page needs its own.
 * @property {boolean | string} [shared] Use one connection for all tabs of this origin with the same address, key and
 *   topics, and the same name if this is a string. They must belong to the same user. Without HTTPS, browsers have no
 *   locks, and every tab has its own connection.
 * @property {() => Promise<number | void>} [snapshot] Loads the state that the messages change. It is called after the
 *   first connect, and after every `gap` and `reset`. Messages wait until it has finished. If it returns the number of the
 *   last message in the state, the stream continues after that number. If the state is older than the connection, the
 *   stream recovers the messages in between. 0 is the start of the log. If the function fails, or returns anything but a
 *   sequence number or nothing, the error is reported, and it is called again after a pause.
 * @property {Array<"websocket" | "events" | "polling">} [transports] How to connect, the best first; by default all three
 *   in this order. The one that worked last is tried first, and another one if it fails several times or does not answer
 *   in 3 seconds (6, if it has worked). While another one is used, the best one is tried again.
 * @property {number} [limit] The most requests that may be unanswered, and messages that may wait for a snapshot: 1,000.
 *   Further requests are rejected. After further messages, the snapshot is loaded again. A `for await` loop may be behind
 *   by 20 times as many messages, before it throws an error.
 */

/**
 * What a stream is doing. `recovering`: it is connected, and receives what it missed. `waiting`: until the next attempt.
 *
 * @typedef {"connecting" | "recovering" | "live" | "waiting" | "closed"} Status
 */

/**
 * A message. `recovered` is true if it was missed and came with a reconnect. Fields that its publisher added are kept.
 *
 * @typedef {{
 *   type: string,
 *   sequence_number: number,
 *   timestamp: string,
 *   data?: any,
 *   topics?: string[],
 *   recovered: boolean,
 *   [field: string]: any,
 * }} Message
 */

/**
 * The position of a client: the highest sequence number that it has seen, and the epoch of the server's log.
 *
 * @typedef {{ position?: any, epoch?: any }} Place
 */

/**
 * A connection that reconnects by itself, and resumes from its position. It has these events:
 *
 * - `status`: `detail.status` is the new one, for `waiting` with `code`, `reason`, and the `milliseconds` of the pause
 * - `gap`: the messages `detail.from` to `detail.to` are lost
 * - `reset`: the server lost its log, so what was missed is unknown; `detail.epoch` is the new epoch
 * - `unauthorized`: fresh tokens were refused for half a minute, and the stream is closed
 * - `refused`: the server does not accept this client, and the stream is closed. `detail.code` is a close code, or 4000 and
 *   an HTTP status; `detail.reason` explains it. A refusal over HTTP counts if it lasts for half a minute
 *
 * Requests are repeated after a reconnect, and executed once: the server remembers the requests that it has executed. If
 * the answer was lost and the client was away for too long, the server may have forgotten the request: the code is 4408.
 * Requests are rejected with an error that has a `code` and a `detail`.
 *
 * `position` and `epoch` are the present position. `topics` are the followed topics, if any were chosen; otherwise the
 * stream follows all that the token grants by name. `transport` and `connectionId` are the transport in use, and the id
 * under which the server lists the connection.
 *
 * @typedef {{
 *   addEventListener(
 *     type: "status" | "gap" | "reset" | "unauthorized" | "refused",
 *     listener: (event: any) => void,
 *     options?: boolean | AddEventListenerOptions,
 *   ): void,
 *   readonly status: Status,
 *   readonly position?: number,
 *   readonly epoch?: string,
 *   readonly topics?: string[],
 *   readonly transport?: string,
 *   readonly connectionId?: string,
 *   on: On,
 *   publish: Publish,
 *   command: Command,
 *   follow: Follow,
 *   unfollow: Follow,
 *   drop: Drop,
 *   close: () => void,
 * } & EventTarget & AsyncIterable<Message>} Stream
 */

/**
 * Connects to a server, such as `location.origin`, and returns at once.
 *
 * @typedef {(url: string, options?: Options) => Stream} Connect
 */

/**
 * Calls a function with every message of a type, or of all types for `"*"`. Returns a function that removes it.
 *
 * @typedef {(type: string, handler: (message: Message) => void) => () => void} On
 */

/**
 * Publishes a message, and returns a promise of its sequence number.
 *
 * @typedef {(message: { type: string, data?: any, users?: string[], topics?: string[], [field: string]: any }) =>
 *   Promise<number>} Publish
 */

/**
 * Calls a command of the application, and returns a promise of its result.
 *
 * @typedef {(name: string, data?: any) => Promise<any>} Command
 */

/**
 * Follows more topics, or fewer, and returns a promise of all that are followed.
 *
 * @typedef {(...topics: string[]) => Promise<string[]>} Follow
 */

/**
 * Drops the connection, as a network failure would, and reconnects after these milliseconds at the earliest.
 *
 * @typedef {(milliseconds?: number) => void} Drop
 */

// Decisions.

/**
 * What the server sends: a message, or a frame such as `connected`.
 *
 * @typedef {{ type: string, [field: string]: any }} Frame
 */

/**
 * Returns the value of a JSON text, or undefined.
 *
 * @typedef {(text: any) => any} Read
 */

/**
 * Returns the place after a frame, and the loss, if any: the detail of a `gap` or `reset` event. The position only grows,
 * except that a reset continues at its own number. A gap begins with the `first` number of the epoch at the earliest, so
 * that a start from 0 does not count numbers that never existed. Tabs that share a connection ignore a gap or reset that
 * they have already filled or noticed.
 *
 * @typedef {(place: Place, frame: Frame) => Place & { loss: any }} Advance
 */

/**
 * Returns the milliseconds before the next attempt: a random time up to a limit that doubles after every failure, from
 * half a second to 30 seconds. `random` is a number from 0 to 1: full jitter, so that clients do not reconnect together.
 *
 * @typedef {(failures: number, random?: number) => number} Backoff
 */

/**
 * Returns what to do after a close code. An HTTP status is one when 4000 is added.
 *
 * @typedef {(code: number) => Action} Next
 */

/**
 * Returns a function that reads Server-Sent Events in pieces of any size, and passes on their frames. An event of the
 * server has one line of data.
 *
 * @typedef {(take: (frame: any) => void) => (piece: string) => void} EventParser
 */

// Transports.

/**
 * Sends a frame of the client, or does its equivalent.
 *
 * @typedef {(frame: Frame) => void} Send
 */

/**
 * Why a connection ended: a close event, or an error. `answered`: a server or proxy has refused a request, which shows
 * that the network works.
 *
 * @typedef {{ code?: any, reason?: string, message?: string, answered?: boolean }} Cause
 */

/**
 * One connection, from the attempt to its end. It is aborted when it has ended or is not needed. After that, `take` and
 * `end` do nothing, so that late events of an old socket have no effect.
 *
 * - `token` returns the token of this connection; it was `attempted` to connect as soon as there was one
 * - `bare`: a WebSocket sends the token in its first frame, and not as a subprotocol
 * - `take` receives a frame of the server
 * - `end` is called when the connection has ended
 * - `send` exists as soon as the transport is open
 * - `position` is the highest number that it has delivered
 * - `connected` is the time of the frame `connected`, which is the `greeting`, and 0 before
 * - `deadline` is when the connection is considered dead: `silence` milliseconds after the last frame
 * - `renewal` is when the token is renewed
 * - `beside` is when another transport is tried in parallel: the best one, or, before the connection is open, one that may
 *   be faster. `tries` counts these attempts
 *
 * @typedef {{
 *   signal: AbortSignal,
 *   abort: () => void,
 *   transport: string,
 *   credentials: RequestCredentials,
 *   bare: boolean,
 *   attempted: boolean,
 *   port: any,
 *   tries: number,
 *   position: number,
 *   connected: number,
 *   greeting?: any,
 *   silence: number,
 *   deadline: number,
 *   renewal: number,
 *   beside: number,
 *   timer?: number,
 *   token: () => Promise<string | undefined>,
 *   take: (frame?: any) => void,
 *   end: (cause?: Cause) => void,
 *   send?: Send,
 * }} Link
 */

/**
 * What transports need to know of a stream. The position moves while they run.
 *
 * @typedef {Place & { url: string, topics?: string[] }} Source
 */

/**
 * Opens a connection, and returns how to send a frame. Rejects with a `Cause`.
 *
 * @typedef {(source: Source, link: Link) => Promise<Send>} Transport
 */

/** @typedef {Record<string, Transport>} Transports */

/** @typedef {(code: number, reason: string, answered?: boolean) => Error & { code: number }} Refused */

/** @typedef {(source: Source, path: string) => string} Address */

/**
 * All topics after a change.
 *
 * @typedef {(topics: string[] | undefined, added: string[], removed: string[]) => string[]} Merged
 */

/**
 * The close codes of statuses that have one. The other codes are 4000 and the status.
 *
 * @typedef {Record<number, number>} Codes
 */

/**
 * Returns the failure of a request that was not answered by the server, but for example by a proxy or a login page.
 *
 * @typedef {(reason?: string, answered?: boolean) => Error} Foreign
 */

/** @typedef {(response: Response, type: string) => boolean} HasType */

/**
 * Returns why a request has failed. A refusal of the server is a problem (RFC 9457) with its own status.
 *
 * @typedef {(response: Response, id?: string) => Promise<Error>} Refusal
 */

/**
 * Returns the response to a request. Rejects with a `Cause`.
 *
 * @typedef {(source: Source, link: Link, path: string, id?: string, body?: any) => Promise<any>} Call
 */

/**
 * Returns how to send requests over HTTP. They keep their order: each waits for the previous one, and a failure of the
 * network ends the connection, after which all are repeated. An answer becomes a `result` without a sequence number,
 * because it is not in order with the messages and must not move the position. Other topics need another request for
 * events, so they end the connection when the server has accepted them. A ping is not sent: it stays unanswered, which
 * leads to another connection.
 *
 * @typedef {(source: Source, link: Link) => Send} Requests
 */

/**
 * Recovers over REST, as the frames of a connection that resumes: `connected` (omitted if it has `begun` and nothing is
 * lost), the messages up to the number `through`, and `heartbeat`.
 *
 * @typedef {(source: Source, link: Link, begun?: boolean, through?: number) => Promise<any>} Recover
 */

/**
 * Returns the answer to a request for messages. Rejects with a `Cause` if it did not come from the server.
 *
 * @typedef {(source: Source, link: Link, path: string) => Promise<any>} PageOf
 */

/**
 * Requests the position over REST from which a new client starts.
 *
 * @typedef {(source: Source, link: Link) => Promise<void>} Begin
 */

/** @typedef {(begun?: boolean) => Promise<any>} Poll */

/**
 * The status of the leading tab; or a frame of the server, and the place of its connection before the frame.
 *
 * @typedef {{ frame: Frame, status?: undefined, epoch: any, previous: any } | { status: Status, [field: string]: any }} Shared
 */

/**
 * Takes a frame of the leading tab. A tab whose position is below that of the connection before the frame has a hole,
 * which it fills over REST. This happens when a leader begins, after a gap, and while two tabs believe that they lead.
 *
 * @typedef {(shared: Shared) => Promise<void>} Forward
 */

/** @typedef {(event: MessageEvent) => void} Hear */

// The stream.

/**
 * @typedef {Omit<Options, "transports"> & {
 *   transports: string[],
 *   credentials: RequestCredentials,
 *   limit: number,
 *   key: string,
 * }} Settings
 */

/** @typedef {(transport: string, token?: Promise<string | undefined>) => Link} Start */

/**
 * Returns the transport of the next attempt: the one that worked last, or else the first. After several failures, it
 * alternates with the other transports.
 *
 * @typedef {() => string} Choose
 */

/** @typedef {(transport: string) => string[]} Others */

/**
 * Begins a connection that replaces the present one as soon as it is connected.
 *
 * @typedef {(transport: string, token?: Promise<string | undefined>) => void} Replace
 */

/**
 * Does what is due for a connection, and waits for the next time. Timers of hidden pages are late, so clocks decide.
 *
 * @typedef {(link: Link) => void} Watch
 */

/**
 * Returns a fresh token, or one that was refused a moment ago and may be valid now. The time limit of a new connection
 * begins when it has its token.
 *
 * @typedef {(link: Link) => Promise<string | undefined>} Fresh
 */

/** @typedef {(link: Link, milliseconds: number) => void} Allow */

/** @typedef {(link: Link) => Promise<void>} Renew */

/**
 * Decides what follows the end of a connection. A connection that lasted five seconds resets the pauses to short ones.
 * With a server that accepts and then drops, they grow to four seconds, and with one that cannot be reached to thirty.
 *
 * @typedef {(link: Link, cause: Cause) => void} Lost
 */

/** @typedef {(link: Link) => void} LostBeside */

/**
 * Returns whether a refusal is the server's verdict about this client: on a WebSocket, where only the server sends these
 * close codes, or on a transport that has worked. Otherwise the request may lack cookies, or have met another server.
 *
 * @typedef {(link: Link) => boolean} Trusts
 */

/** @typedef {(link: Link) => void} Missed */

/** @typedef {(link: Link, action: Action, cause: Cause) => number} PauseAfter */

/** @typedef {(pause?: number, cause?: Cause) => void} Wait */

/**
 * Reacts to an event of the page. `offline` may be wrong, for example with a VPN, so it only pings the server, as the
 * other events do when the last frame is old. A page that is frozen or may be stored must have no connection.
 *
 * @typedef {(event: { type: string }) => void} Wake
 */

/** @typedef {(type: string, detail: any) => void} Tell */

/** @typedef {(status: Status, detail?: any) => void} Become */

/**
 * Takes a frame. The first one of a connection beside the present one is `connected`: then it replaces the present one.
 *
 * @typedef {(link: Link, frame: any) => void} Take
 */

/** @typedef {(frame: Frame) => any} Move */

/** @typedef {(frame: Frame, before?: number) => void} Share */

/**
 * Renews the token after 80 % of its lifetime. With a wrong clock, the renewal is late or missing. Then the server closes
 * the connection with 4401, and the client reconnects with a fresh token.
 *
 * @typedef {(link: Link, expires_at: number) => void} Expire
 */

/** @typedef {(message: any) => void} Deliver */

/**
 * Holds messages back until another snapshot is loaded, and drops those held before. A snapshot that is older than
 * `accountedAfter` lacks messages that neither wait nor were declared as lost.
 *
 * @typedef {(accountedAfter: number) => void} Hold
 */

/**
 * Returns what a snapshot function returned, if it is a sequence number or nothing. Throws TypeError.
 *
 * @typedef {(number: any) => number | undefined} CheckedNumber
 */

/**
 * Delivers the messages that waited for a snapshot, except those that it includes. If it lacks messages that do not wait,
 * the stream goes back to its number.
 *
 * @typedef {(held: Message[], number: number) => void} Resume
 */

/**
 * Goes back to an earlier position, and reconnects: the server sends what follows it, or declares it lost, which needs
 * another snapshot. That one may be as old, because the loss has been declared.
 *
 * @typedef {(number: number) => void} Rewind
 */

/** @typedef {(frame: Frame) => Promise<any>} Request */

// Frames and close codes, generated from those of the server.

/**
 * The first frame: where delivery starts, and how complete the recovery is. `oldest` and `latest` are as over REST, and
 * `sequence_number` is the position from which you start. There is an `outcome` if you sent `since`, `topics` if you
 * follow any, and `expires_at` and `expires_in` if your token expires. Use `expires_in` where your clock may be wrong.
 * Requests beyond `rate` and `burst` are refused.
 *
 * @typedef {object} ConnectedFrame
 * @property {"connected"} type
 * @property {string} connection_id
 * @property {number} oldest
 * @property {number} latest
 * @property {number} sequence_number
 * @property {string} epoch
 * @property {number} first The number with which this epoch began.
 * @property {number} heartbeat_seconds Seconds between two heartbeats.
 * @property {number} max_age Seconds that messages and answers are retained.
 * @property {number} rate Requests a second that you may send on average.
 * @property {number} burst Requests that you may send at once.
 * @property {"complete" | "gap" | "reset"} [outcome]
 * @property {string[]} [topics]
 * @property {number} [expires_at] Unix time in seconds.
 * @property {number} [expires_in] Seconds until the token expires, by the clock of the server.
 */

/**
 * The position of a client that is up to date. It comes once you are up to date after a resume, and every
 * `heartbeat_seconds`. A client that receives nothing for 2.5 times as long considers the connection lost.
 *
 * @typedef {object} HeartbeatFrame
 * @property {"heartbeat"} type
 * @property {number} sequence_number
 */

/**
 * Messages that are lost. You were too slow: the log evicted `from` to `to` before you had read them. `sequence_number`
 * is `to`.
 *
 * @typedef {object} GapFrame
 * @property {"gap"} type
 * @property {number} from
 * @property {number} to
 * @property {number} sequence_number
 */

/**
 * The server restarts: reconnect after a delay. `after_ms` is in milliseconds.
 *
 * @typedef {object} ReconnectFrame
 * @property {"reconnect"} type
 * @property {number} after_ms
 */

/**
 * A frame of the client was refused, or a request failed. `code` is a close code, and `id` that of the frame, if it had
 * one.
 *
 * @typedef {object} ErrorFrame
 * @property {"error"} type
 * @property {string} [id]
 * @property {number} code
 * @property {string} detail
 */

/**
 * The answer to ping.
 *
 * @typedef {object} PongFrame
 * @property {"pong"} type
 */

/**
 * The answer to a renewed token, with the topics that it added and removed. `sequence_number` is your position.
 * `expires_at` and `expires_in` are as in `connected`.
 *
 * @typedef {object} AuthenticatedFrame
 * @property {"authenticated"} type
 * @property {string[]} added
 * @property {string[]} removed
 * @property {number} sequence_number
 * @property {number} [expires_at] Unix time in seconds.
 * @property {number} [expires_in] Seconds until the token expires, by the clock of the server.
 */

/**
 * The answer to follow and unfollow: the topics that it added or removed. `added` are those that you did not follow
 * before, and `removed` those that you no longer follow. `sequence_number` is your position. There is an `outcome` if
 * the request had `since`.
 *
 * @typedef {object} FollowingFrame
 * @property {"following"} type
 * @property {string[]} added
 * @property {string[]} removed
 * @property {number} sequence_number
 * @property {"complete" | "gap" | "reset"} [outcome]
 * @property {string} [id]
 */

/**
 * The answer to publish. `sequence_number` is that of the message. It comes after all that you see up to this number.
 *
 * @typedef {object} PublishedFrame
 * @property {"published"} type
 * @property {string} id
 * @property {number} sequence_number
 */

/**
 * The answer to command.
 *
 * @typedef {object} ResultFrame
 * @property {"result"} type
 * @property {string} id
 * @property {any} data
 */

/**
 * Asks for pong.
 *
 * @typedef {object} PingFrame
 * @property {"ping"} type
 */

/**
 * The first frame without a token in the handshake; later, a renewed token. The token is used from now on, and must be
 * for the same user. Topics that it does not grant are no longer followed; if you neither chose nor unfollowed topics,
 * you follow all that it grants by name. Answered by `authenticated`.
 *
 * @typedef {object} AuthenticateFrame
 * @property {"authenticate"} type
 * @property {string} token
 */

/**
 * Follow topics, too. You receive their messages from your position on. With `since`, their messages after it come
 * first, except those that you have seen, and then `following` with the `outcome`; their numbers are at or below your
 * position. If `since` is ahead of your node, the frame waits until the node has caught up, or is answered with an
 * `error`.
 *
 * @typedef {object} FollowFrame
 * @property {"follow"} type
 * @property {string[]} topics
 * @property {number} [since]
 * @property {string} [epoch]
 * @property {string} [id]
 */

/**
 * Stop following topics. Answered by `following`.
 *
 * @typedef {object} UnfollowFrame
 * @property {"unfollow"} type
 * @property {string[]} topics
 * @property {string} [id]
 */

/**
 * Publish a message. Repeating an id publishes nothing. The message is as for `POST` (scope `messages:publish`).
 * Answered by `published`, or `error`, and a repeated id like the first time.
 *
 * @typedef {object} PublishFrame
 * @property {"publish"} type
 * @property {string} id
 * @property {{ type: string, [field: string]: any }} message
 */

/**
 * Call a command of the application. A repeated id is not executed again. Answered by `result` or `error`, and a
 * repeated id like the first time.
 *
 * @typedef {object} CommandFrame
 * @property {"command"} type
 * @property {string} id
 * @property {string} name
 * @property {any} [data]
 */

/**
 * A frame that the server sends besides messages.
 *
 * @typedef {ConnectedFrame
 *   | HeartbeatFrame
 *   | GapFrame
 *   | ReconnectFrame
 *   | ErrorFrame
 *   | PongFrame
 *   | AuthenticatedFrame
 *   | FollowingFrame
 *   | PublishedFrame
 *   | ResultFrame
 * } ServerFrame
 */

/**
 * A frame that a client sends.
 *
 * @typedef {PingFrame
 *   | AuthenticateFrame
 *   | FollowFrame
 *   | UnfollowFrame
 *   | PublishFrame
 *   | CommandFrame
 * } ClientFrame
 */

/**
 * What a client does after a close code. `stop`: do not reconnect. `renew`: reconnect with a new token. `slow`:
 * reconnect later, with backoff. `resume`: reconnect with jitter, and resume.
 *
 * @typedef {"stop" | "renew" | "slow" | "resume"} Action
 */

/**
 * What a client does after each close code. It resumes after all others.
 *
 * @typedef {{
 *   1000?: "resume",
 *   1001?: "resume",
 *   1005?: "resume",
 *   1006?: "resume",
 *   1007?: "resume",
 *   1009: "stop",
 *   1011?: "resume",
 *   1012?: "resume",
 *   1013?: "resume",
 *   4400: "stop",
 *   4401: "renew",
 *   4403: "stop",
 *   4408: "renew",
 *   4429: "slow",
 * } & Record<number, Action>} Actions
 */

export {};
