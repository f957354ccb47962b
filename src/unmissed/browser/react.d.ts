import type { FunctionComponent, ReactNode } from "react";

import type { AnyCommands, AnyEvents, Member, On, Options, Status, Stream, Value } from "./types.js";

/**
 * What `connect` takes. Other `topics` are followed on the same connection, and the functions are those of the last render.
 * Another `url` or `storageKey` opens another stream. For another user, give the provider another `key`.
 */
export interface ProviderProps<Events extends object = AnyEvents> extends Omit<Options<Events>, "key"> {
  /** The address of the server, such as `location.origin`. */
  url: string | URL;
  /** The `key` in `storage`, a name that React uses itself. */
  storageKey?: string;
  children?: ReactNode;
}

export interface Unmissed<Events extends object = AnyEvents, Commands extends object = AnyCommands> {
  /** Connects while it is mounted, and closes the stream afterwards. On servers, it renders its children. */
  UnmissedProvider: FunctionComponent<ProviderProps<Events>>;
  /**
   * Calls a function with every message of a type, or of all types for `"*"`, while the component is mounted. It may be
   * another function in every render.
   */
  useMessages: On<Events, void>;
  /** Returns the status of the stream, and renders the component again when it changes. */
  useStatus: () => Status;
  /** Returns the values by key of a topic, or of the messages without one, and renders the component again after changes. */
  useValues: <Data extends Value<Events> = Value<Events>>(topic?: string) => ReadonlyMap<string, Data>;
  /** Returns the members of a topic by the id of their user, and renders the component again after changes. */
  useMembers: <State = unknown>(topic: string) => ReadonlyMap<string, Member<State>>;
  /** Returns the stream, which is undefined on servers and until the provider is mounted. */
  useStream: () => Stream<Events, Commands> | undefined;
}

/**
 * Returns a provider and its hooks, which know these events and commands:
 * `export const { UnmissedProvider, useMessages } = createUnmissed<Events, Commands>()`.
 */
export declare const createUnmissed: <
  Events extends object = AnyEvents,
  Commands extends object = AnyCommands,
>() => Unmissed<Events, Commands>;

export declare const UnmissedProvider: Unmissed["UnmissedProvider"];
export declare const useMembers: Unmissed["useMembers"];
export declare const useMessages: Unmissed["useMessages"];
export declare const useStatus: Unmissed["useStatus"];
export declare const useStream: Unmissed["useStream"];
export declare const useValues: Unmissed["useValues"];
