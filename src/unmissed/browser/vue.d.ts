import type { MaybeRefOrGetter, Ref, ShallowRef } from "vue";

import type { AnyCommands, AnyEvents, Member, On, Options, Status, Stream, Value } from "./types.js";

/** What `connect` takes. Other `topics` are followed on the same connection. */
export interface ProvideOptions<Events extends object = AnyEvents> extends Omit<Options<Events>, "topics"> {
  topics?: MaybeRefOrGetter<string[] | undefined>;
}

type StreamRef<Events extends object, Commands extends object> = Readonly<
  ShallowRef<Stream<Events, Commands> | undefined>
>;

export interface Unmissed<Events extends object = AnyEvents, Commands extends object = AnyCommands> {
  /**
   * Connects, for this component and those below it, until it is unmounted. Another address opens another stream. Returns
   * the stream, which is undefined on servers. Call it in `setup`.
   */
  provideUnmissed: (url: MaybeRefOrGetter<string | URL>, options?: ProvideOptions<Events>) => StreamRef<Events, Commands>;
  /** Calls a function with every message of a type, or of all types for `"*"`, until the component is unmounted. */
  useMessages: On<Events, void>;
  /** Returns the status of the stream. */
  useStatus: () => Readonly<Ref<Status>>;
  /** Returns the values by key of a topic, or of the messages without one: another map after each change. */
  useValues: <Data extends Value<Events> = Value<Events>>(
    topic?: MaybeRefOrGetter<string | undefined>,
  ) => Readonly<ShallowRef<ReadonlyMap<string, Data>>>;
  /** Returns the members of a topic by the id of their user: another map after each change. */
  useMembers: <State = unknown>(
    topic: MaybeRefOrGetter<string>,
  ) => Readonly<ShallowRef<ReadonlyMap<string, Member<State>>>>;
  /** Returns the stream, which is undefined on servers. */
  useStream: () => StreamRef<Events, Commands>;
}

/**
 * Returns composables that know these events and commands:
 * `export const { provideUnmissed, useMessages } = createUnmissed<Events, Commands>()`.
 */
export declare const createUnmissed: <
  Events extends object = AnyEvents,
  Commands extends object = AnyCommands,
>() => Unmissed<Events, Commands>;

export declare const provideUnmissed: Unmissed["provideUnmissed"];
export declare const useMembers: Unmissed["useMembers"];
export declare const useMessages: Unmissed["useMessages"];
export declare const useStatus: Unmissed["useStatus"];
export declare const useStream: Unmissed["useStream"];
export declare const useValues: Unmissed["useValues"];
