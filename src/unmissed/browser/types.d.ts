/** The public types of the client. With declared events and commands, they say what messages, and results, contain. */

/** What `connect` takes besides the address of the server. */
export interface Options<Events extends object = AnyEvents> {
  /**
   * A JWT, or a function that returns a fresh one. It is called for every attempt to connect, and again before the token
   * expires. It may take five minutes, for example while a user logs in. If it fails, it is called again after a pause. If
   * its tokens are refused for half a minute, the stream ends with `unauthorized`. Omit it if cookies authenticate.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * Whether requests over HTTP send cookies; by default `same-origin`. `include` is needed if cookies authenticate at a
   * server of another origin, which must list the origin of the page in `UNMISSED_ALLOWED_ORIGINS`. WebSockets always send
   * cookies.
   */
  credentials?: RequestCredentials;
  /** The topics to follow; by default all that the token grants by name. */
  topics?: string[];
  /**
   * Start after this sequence number instead of with the next message. 0 starts with everything that the server retains.
   */
  since?: number;
  /** The epoch of `since`. */
  epoch?: string;
  /**
   * Stores the position, which replaces `since`: with `sessionStorage`, a tab continues after a reload. Use `localStorage`
   * only with a single tab: several would overwrite each other's position.
   */
  storage?: Storage;
  /**
   * The key in `storage`; by default `unmissed:`, the address of the server, and the topics. Each stream of a page needs its
   * own.
   */
  key?: string;
  /**
   * Use one connection for all tabs of this origin with the same address, key and topics, and the same name if this is a
   * string. They must belong to the same user. Without HTTPS, browsers have no locks, and every tab has its own connection.
   */
  shared?: boolean | string;
  /**
   * Loads the state that the messages change. It is called after the first connect, and after every `gap` and `reset`.
   * Messages wait until it has finished. If it returns the number of the last message in the state, the messages after that
   * number follow. If the state is older than the connection, the stream recovers the messages in between. Without a number,
   * messages that follow a gap may be in the state already. 0 is the start of the log. If the function fails, takes too long,
   * or returns anything but a sequence number or nothing, the error is reported, and it is called again after a pause.
   */
  snapshot?: (context: SnapshotContext) => Promise<number | void>;
  /** How many milliseconds `snapshot` may take: 30,000. */
  snapshotTimeout?: number;
  /** Is called with every message, as a handler of `on("*")`. */
  onMessage?: (message: Messages<Events>) => void;
  /**
   * Write every decision of the stream to `console.debug`. The item `unmissed` of `localStorage` does so for all streams of a
   * page, if it is `debug`.
   */
  debug?: boolean;
  /**
   * How to connect, the best first; by default all three in this order. The one that worked last is tried first, and another
   * one if it fails several times or does not answer in 3 seconds (6, if it has worked). While another one is used, the best
   * one is tried again.
   */
  transports?: Array<"websocket" | "events" | "polling">;
  /**
   * The most requests that may be unanswered, and messages that may wait for a snapshot, or for the first handler: 1,000.
   * Further requests are rejected. After further messages, the snapshot is loaded again, or the server sends them again. A
   * `for await` loop may be behind by 20 times as many messages, before it throws an error.
   */
  limit?: number;
}

/** What a snapshot function gets. */
export interface SnapshotContext {
  /** Sends the token of the stream to its server, and to no other. */
  fetch: typeof fetch;
  /** Is aborted when the time is over, or the stream is closed. */
  signal: AbortSignal;
}

/** What has become of a snapshot. `failed`: it is loaded again after a pause. */
export type SnapshotStatus = "loading" | "loaded" | "failed";

/** What a stream is doing. `recovering`: it is connected, and receives what it missed. `waiting`: until the next attempt. */
export type Status = "connecting" | "recovering" | "live" | "waiting" | "closed";

// What the application declares.

/** Events that are not declared. The data of a message is `unknown`, unless its handler declares it. */
export type AnyEvents = Record<string, unknown>;

/** Commands that are not declared. A result is `unknown`, unless the caller declares it. */
export type AnyCommands = Record<string, { data?: unknown; result: unknown }>;

/** Whether every name is allowed: none is declared, or the declaration has an index signature. */
type IsOpen<Declared> = string extends keyof Declared ? true : [keyof Declared] extends [never] ? true : false;

/** The data of an event that is not declared by name. */
type OpenData<Events> = [keyof Events] extends [never] ? unknown : Events[keyof Events];

type NamesOf<Declared> = keyof Declared & string;

type OneOf<Types> = Types[keyof Types];

// Messages.

/** A message. */
export interface Message<Type extends string = string, Data = unknown> {
  type: Type;
  /** Its place in the log. An ephemeral message has none: it is not stored. */
  sequence_number?: number;
  /** RFC 3339, in UTC. */
  timestamp: string;
  /** What was published, which is undefined if there was nothing. */
  data: Data;
  /** The topics to which it was published, if any. */
  topics?: string[];
  /** It changes the value of this key: it replaces the value, adds a piece to it, or ends it. */
  key?: string;
  append?: true;
  deleted?: true;
  /** Whether it was missed, and came with a reconnect. */
  recovered: boolean;
}

/**
 * A message of any type. If events are declared, its `type` determines its `data`. Otherwise it may have fields that its
 * publisher added.
 */
export type Messages<Events extends object = AnyEvents> =
  IsOpen<Events> extends true
    ? Message<string, OpenData<Events>> & OtherFields<Events>
    : OneOf<{ [Type in NamesOf<Events>]: Message<Type, Events[Type]> }>;

type OtherFields<Events> = { [field: string]: OpenData<Events> };

/** The message of a type, and for `"*"` of any type. */
export type MessageOf<Events extends object, Type extends string> = Type extends keyof Events
  ? Message<Type, Events[Type]>
  : Messages<Events>;

/** What `publish` takes. */
export type Published<Events extends object = AnyEvents> =
  IsOpen<Events> extends true
    ? { type: string; data?: OpenData<Events>; [field: string]: unknown } & Audience & Change
    : OneOf<{
        [Type in NamesOf<Events>]:
          | ({ type: Type; data: Events[Type] } & Audience & Change)
          | ({ type: Type; data?: undefined; key: string; deleted: true } & Audience);
      }>;

/** What a message does to the value of a key. */
export interface Change {
  /** The message is the value of this key: it replaces the earlier one for the same audience. */
  key?: string;
  /** It adds a piece to the value instead. */
  append?: boolean;
  /** The value ends. */
  deleted?: boolean;
}

/** For whom a message is; by default for everyone. */
export interface Audience {
  users?: string[];
  topics?: string[];
}

// Values by key, and members.

/** A map that the stream changes. */
export interface LiveMap<Value> extends ReadonlyMap<string, Value> {
  /** Whether it has been loaded. While it is loaded again, after a `gap` or `reset`, it keeps what it has. */
  readonly loaded: boolean;
  /** Calls a function after changes, those of one moment together. Returns a function that ends this. */
  subscribe: (changed: () => void) => () => void;
}

/**
 * The value of a key: its newest message. If pieces were added, and all of it is text, `data` is the whole text. Otherwise,
 * `data` is that of the message to which they were added, and `pieces` has the data of each.
 */
export type Value<Events extends object = AnyEvents> = Messages<Events> & { key: string; pieces?: unknown[] };

/** A user in a topic: how many connections follow it, and what the user has set with `setPresence`. */
export interface Member<State = unknown> {
  connections: number;
  state?: State;
}

// Events of a stream.

/** Why a connection ended, or why a stream was refused. */
export interface Reason {
  /** A close code, or 4000 and an HTTP status. */
  code: number;
  reason: string;
}

/** The events of a stream, by type. */
export interface StreamEvents {
  /** `waiting` has the code and the reason with which the connection ended, if it did, and the length of the pause. */
  status: CustomEvent<{ status: Status; milliseconds?: number } & Partial<Reason>>;
  /** Of the messages in this range, at least the last is lost. Those that are retained follow. */
  gap: CustomEvent<{ type: "gap"; from: number; to: number }>;
  /** The server lost its log, so what was missed is unknown. The epoch is the new one. */
  reset: CustomEvent<{ type: "reset"; epoch: string }>;
  /** Fresh tokens were refused for half a minute, and the stream is closed. */
  unauthorized: CustomEvent<Reason>;
  /** The server does not accept this client, and the stream is closed. A refusal over HTTP must last for half a minute. */
  refused: CustomEvent<Reason>;
  /** `loaded` has the number after which the messages follow. */
  snapshot: CustomEvent<{ status: SnapshotStatus; number?: number }>;
  /**
   * Something failed, and why: the function for the token, the snapshot, the storage, the values of `state` or `members`,
   * repeating what was set with `setPresence`, or the stream, which has ended.
   */
  error: CustomEvent<{
    error: unknown;
    during: "token" | "snapshot" | "storage" | "state" | "presence" | "connection";
  }>;
}

type Listener<Event> = ((event: Event) => void) | { handleEvent(event: Event): void };

// The stream.

/**
 * A connection that reconnects by itself, and resumes from its position.
 *
 * Requests are repeated after a reconnect, and executed once: the server remembers the requests that it has executed. If the
 * answer was lost and the client was away for too long, the server may have forgotten the request: the code is 4408. Requests
 * are rejected with a `RequestError`.
 */
export interface Stream<Events extends object = AnyEvents, Commands extends object = AnyCommands> extends EventTarget {
  readonly status: Status;
  /** Undefined before the first connect, and without `snapshot`. */
  readonly snapshotStatus?: SnapshotStatus;
  /** The highest sequence number that the stream has seen. */
  readonly position?: number;
  readonly epoch?: string;
  /** The followed topics, if any were chosen. Otherwise the stream follows all that the token grants by name. */
  readonly topics?: string[];
  readonly transport?: string;
  /** The id under which the server lists the connection. */
  readonly connectionId?: string;

  addEventListener<Type extends keyof StreamEvents>(
    type: Type,
    listener: Listener<StreamEvents[Type]> | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Type extends keyof StreamEvents>(
    type: Type,
    listener: Listener<StreamEvents[Type]> | null,
    options?: boolean | EventListenerOptions,
  ): void;

  /** Calls a function with every message of a type, or of all types for `"*"`. Returns a function that removes it. */
  on: On<Events>;
  /** Publishes a message. */
  publish: Publish<Events>;
  /** Calls a command of the application, and returns a promise of its result. */
  command: Command<Commands>;
  /** Follows more topics, and returns a promise of all that are followed. */
  follow: (...topics: string[]) => Promise<string[]>;
  /** Follows fewer topics, and returns a promise of all that are followed. */
  unfollow: (...topics: string[]) => Promise<string[]>;
  /**
   * Returns the values by key of a topic, or of the messages without a topic: a map that changes. A topic that is not
   * followed is followed, too. The same topic has the same map.
   */
  state: <Data extends Value<Events> = Value<Events>>(topic?: string) => LiveMap<Data>;
  /** Returns the members of a topic by the id of their user: a map that changes, as that of `state`. */
  members: <State = unknown>(topic: string) => LiveMap<Member<State>>;
  /** Sets the state that others see of this user in a topic, also after reconnects. */
  setPresence: (topic: string, state?: unknown) => Promise<void>;
  /** Drops the connection, as a network failure would, and reconnects after these milliseconds at the earliest. */
  drop: (milliseconds?: number) => void;
  /** Closes the stream, and rejects the requests that are not answered. */
  close: () => void;
  /** All messages, until the stream is closed. */
  [Symbol.asyncIterator](): AsyncGenerator<Messages<Events>, void, undefined>;
}

/** What rejects a request. */
export interface RequestError extends Error {
  /** A close code, or 4000 and an HTTP status. */
  code: number;
  detail: string;
}

/**
 * Connects to a server, such as `https://api.example.com`, or `/` for the origin of the page, and returns at once. The path is
 * that under which the application is mounted. Throws TypeError if no server can have this address.
 *
 * `connect<Events, Commands>(...)` declares the data of events by type, and the data and results of commands by name:
 * `unmissed types` prints both.
 */
export type Connect = <Events extends object = AnyEvents, Commands extends object = AnyCommands>(
  url: string | URL,
  options?: Options<Events>,
) => Stream<Events, Commands>;

export interface Publish<Events extends object = AnyEvents> {
  /**
   * Publishes an ephemeral message, which the server passes on without storing it. It does not wait for a connection: without
   * one, the promise is rejected with 1006. If the connection is lost before the answer, it is rejected with 4408 at the next
   * connect.
   */
  (message: Published<Events> & { ephemeral: true }): Promise<void>;
  /** Publishes a message, and returns a promise of its sequence number. */
  (message: Published<Events>): Promise<number>;
}

/** `Data` and `Others`, the data and the other fields of a message, are what a handler says if events are not declared. */
export type On<Events extends object = AnyEvents, Result = () => void> =
  IsOpen<Events> extends true
    ? <Data = OpenData<Events>, Others = OtherFields<Events>>(
        type: string,
        handler: (message: Message<string, Data> & Others) => void,
      ) => Result
    : <Type extends NamesOf<Events> | "*">(type: Type, handler: (message: MessageOf<Events, Type>) => void) => Result;

export type Command<Commands extends object = AnyCommands> =
  IsOpen<Commands> extends true
    ? <Result = ResultOf<OneOf<Commands>>>(name: string, data?: unknown) => Promise<Result>
    : <Name extends NamesOf<Commands>>(
        name: Name,
        ...data: DataParameter<Commands[Name]>
      ) => Promise<ResultOf<Commands[Name]>>;

type DataParameter<Declared> = Declared extends { data: infer Data }
  ? [data: Data]
  : "data" extends keyof Declared
    ? [data?: Declared["data"]]
    : [];

type ResultOf<Declared> = Declared extends { result: infer Result } ? Result : unknown;

/** What the server sends: a message, or a frame such as `connected`. */
export type Frame = { type: string; [field: string]: any };

// Frames and close codes, generated from those of the server.

/**
 * The first frame: where delivery starts, and how complete the recovery is. `oldest` and `latest` are as over REST, and
 * `sequence_number` is the position from which you start. There is an `outcome` if you sent `since`. If it is a gap, or
 * a reset after which something above this position was evicted, there are `from` and `to` as in the frame `gap`. With
 * `state`, the frames `state` follow. There are `topics` if you follow any, and `expires_at` and `expires_in` if your
 * token expires. Use `expires_in` where your clock may be wrong. Requests beyond `rate` and `burst` are refused.
 */
export interface ConnectedFrame {
  type: "connected";
  connection_id: string;
  oldest: number;
  latest: number;
  sequence_number: number;
  epoch: string;
  /** The number with which this epoch began. */
  first: number;
  /** Seconds between two heartbeats. */
  heartbeat_seconds: number;
  /** Seconds that messages without a rule, and answers, are retained. */
  max_age: number;
  /** Requests a second that you may send on average. */
  rate: number;
  /** Requests that you may send at once. */
  burst: number;
  outcome?: "complete" | "gap" | "reset";
  from?: number;
  to?: number;
  state?: boolean;
  topics?: string[];
  /** Unix time in seconds. */
  expires_at?: number;
  /** Seconds until the token expires, by the clock of the server. */
  expires_in?: number;
}

/**
 * The position of a client that is up to date. It comes once you are up to date after a resume, and every
 * `heartbeat_seconds`. A client that receives nothing for 2.5 times as long considers the connection lost.
 */
export interface HeartbeatFrame {
  type: "heartbeat";
  sequence_number: number;
}

/**
 * A message that you would have seen is lost. Of the messages `from` to `to`, at least the one numbered `to` was
 * evicted before you had read it. Those that are retained follow; whatever else you would have seen in this range is
 * lost, or was replaced. `sequence_number` is your position, which a gap does not move. Each loss is declared once on a
 * connection.
 */
export interface GapFrame {
  type: "gap";
  from: number;
  to: number;
  sequence_number: number;
}

/**
 * A part of the retained values by key that you see, in order. `values` are messages with a `key`: the newest of each,
 * and the pieces with `append`. The last part has `has_more` false and a `sequence_number`, at which the state is cut:
 * what is newer follows as ordinary messages. With the last part, replace all that you kept for these topics. If you
 * are cut before it, ask for the state again. `id` is that of the request, if it had one.
 */
export interface StateFrame {
  type: "state";
  values: { [name: string]: unknown }[];
  has_more: boolean;
  sequence_number?: number;
  id?: string;
}

/** The server restarts: reconnect after a delay. `after_ms` is in milliseconds. */
export interface ReconnectFrame {
  type: "reconnect";
  after_ms: number;
}

/**
 * A frame of the client was refused, or a request failed. `code` is a close code, and `id` that of the frame, if it had
 * one.
 */
export interface ErrorFrame {
  type: "error";
  id?: string;
  code: number;
  detail: string;
}

/** The answer to ping. */
export interface PongFrame {
  type: "pong";
}

/**
 * The answer to a renewed token, with the topics that it added and removed. `sequence_number` is your position.
 * `expires_at` and `expires_in` are as in `connected`.
 */
export interface AuthenticatedFrame {
  type: "authenticated";
  added: string[];
  removed: string[];
  sequence_number: number;
  /** Unix time in seconds. */
  expires_at?: number;
  /** Seconds until the token expires, by the clock of the server. */
  expires_in?: number;
}

/**
 * The answer to follow and unfollow: the topics that it added or removed. `added` are those that you did not follow
 * before, and `removed` those that you no longer follow. `sequence_number` is your position. There is an `outcome` if
 * the request had `since`: it is a gap if messages of the new topics after it were evicted, with `from` and `to` as in
 * the frame `gap`.
 */
export interface FollowingFrame {
  type: "following";
  added: string[];
  removed: string[];
  sequence_number: number;
  outcome?: "complete" | "gap" | "reset";
  from?: number;
  to?: number;
  id?: string;
}

/**
 * The answer to publish. `sequence_number` is that of the message, unless it is ephemeral. It comes after all that you
 * see up to this number.
 */
export interface PublishedFrame {
  type: "published";
  id: string;
  sequence_number?: number;
}

/** The answer to command. */
export interface ResultFrame {
  type: "result";
  id: string;
  data: unknown;
}

/** Asks for pong. */
export interface PingFrame {
  type: "ping";
}

/**
 * The first frame without a token in the handshake; later, a renewed token. The token is used from now on, and must be
 * for the same user. Topics that it does not grant are no longer followed; if you neither chose nor unfollowed topics,
 * you follow all that it grants by name. Answered by `authenticated`.
 */
export interface AuthenticateFrame {
  type: "authenticate";
  token: string;
}

/**
 * Follow topics, too. You receive their messages from your position on. With `since`, their messages after it come
 * first, except those that you have seen, and then `following` with the `outcome`; their numbers are at or below your
 * position. If `since` is ahead of your node, the frame waits until the node has caught up, or is answered with an
 * `error`. With `state`, the values of these topics come before all that in frames `state`, unless the messages after
 * `since` are complete.
 */
export interface FollowFrame {
  type: "follow";
  topics: string[];
  since?: number;
  epoch?: string;
  state?: boolean;
  id?: string;
}

/** Stop following topics. Answered by `following`. */
export interface UnfollowFrame {
  type: "unfollow";
  topics: string[];
  id?: string;
}

/**
 * Publish a message. Repeating an id publishes nothing. The message is as for `POST` (scope `messages:publish`).
 * Answered by `published`, or `error`, and a repeated id like the first time. An ephemeral message is published each
 * time.
 */
export interface PublishFrame {
  type: "publish";
  id: string;
  message: Published;
}

/**
 * Call a command of the application. A repeated id is not executed again. Answered by `result` or `error`, and a
 * repeated id like the first time.
 */
export interface CommandFrame {
  type: "command";
  id: string;
  name: string;
  data?: unknown;
}

/** A frame that the server sends besides messages. */
export type ServerFrame =
  | ConnectedFrame
  | HeartbeatFrame
  | GapFrame
  | StateFrame
  | ReconnectFrame
  | ErrorFrame
  | PongFrame
  | AuthenticatedFrame
  | FollowingFrame
  | PublishedFrame
  | ResultFrame;

/** A frame that a client sends. */
export type ClientFrame =
  | PingFrame
  | AuthenticateFrame
  | FollowFrame
  | UnfollowFrame
  | PublishFrame
  | CommandFrame;

/**
 * What a client does after a close code. `stop`: do not reconnect. `renew`: reconnect with a new token. `slow`:
 * reconnect later, with backoff. `resume`: reconnect with jitter, and resume.
 */
export type Action =
  | "stop"
  | "renew"
  | "slow"
  | "resume";

/** What a client does after each close code. It resumes after all others. */
export type Actions = Record<number, Action> & {
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
};
