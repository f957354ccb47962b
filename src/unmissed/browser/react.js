"use client";
/**
 * React: a provider of the stream, and hooks for the components in it.
 *
 * @import { Context } from "react"
 * @import * as types from "./react.js"
 * @import { LiveMap, Options, Status, Stream } from "./types.js"
 */

import * as React from "react";

import { changeTopics, copiesOf } from "./topics.js";
import { connect } from "./unmissed.js";

/**
 * Returns options whose functions are always those of the last render.
 *
 * @param {{ current: any }} latest
 * @returns {Options}
 */
const withLatest = (latest) => {
  const options = { ...latest.current };
  for (const [name, value] of Object.entries(options)) {
    if (typeof value === "function") options[name] = (/** @type {any} */ ...given) => latest.current[name]?.(...given);
  }
  // A token that is no function changes with a render, too.
  if (typeof options.token === "string") options.token = () => latest.current.token;
  return options;
};

/** @type {() => Status} */
const beforeConnecting = () => "connecting";

/** @type {types.createUnmissed} */
export const createUnmissed = () => {
  /** @type {Context<Stream<any, any> | null | undefined>} Null without a provider, undefined before the first effect. */
  const StreamContext = React.createContext(/** @type {any} */ (null));

  /** @param {types.ProviderProps<any>} props */
  const UnmissedProvider = ({ url, topics, storageKey, children, ...options }) => {
    const [stream, setStream] = React.useState(/** @type {Stream | undefined} */ (undefined));
    const latest = React.useRef(options);
    const followed = React.useRef(topics ?? []);
    const address = String(url);

    React.useEffect(() => {
      latest.current = options;
    });
    React.useEffect(() => {
      const opened = connect(address, { ...withLatest(latest), topics, ...(storageKey && { key: storageKey }) });
      followed.current = topics ?? [];
      setStream(opened);
      return () => opened.close();
      // Other topics need no other connection, unless they were chosen by the token before.
    }, [address, storageKey, !topics]);
    React.useEffect(() => {
      if (stream && topics) followed.current = changeTopics(stream, followed.current, topics);
    }, [stream, JSON.stringify(topics)]);
    return React.createElement(StreamContext.Provider, { value: stream }, children);
  };

  const useStream = () => {
    const stream = React.useContext(StreamContext);
    if (stream === null) throw new Error("there is no stream: put the component into <UnmissedProvider url={...}>");
    return stream;
  };

  const useStatus = () => {
    const stream = useStream();
    const subscribe = React.useCallback(
      (/** @type {() => void} */ changed) => {
        stream?.addEventListener("status", changed);
        return () => stream?.removeEventListener("status", changed);
      },
      [stream],
    );
    return React.useSyncExternalStore(subscribe, () => stream?.status ?? beforeConnecting(), beforeConnecting);
  };

  /**
   * @param {string} type
   * @param {(message: any) => void} handler
   */
  const useMessages = (type, handler) => {
    const stream = useStream();
    const latest = React.useRef(handler);
    React.useEffect(() => {
      latest.current = handler;
    });
    React.useEffect(() => stream?.on(type, (message) => latest.current(message)), [stream, type]);
  };

  /** @param {LiveMap<any> | undefined} map */
  const useMap = (map) => {
    const copies = React.useMemo(() => copiesOf(map), [map]);
    return React.useSyncExternalStore(copies.subscribe, copies.current, copies.current);
  };

  /** @param {string} [topic] */
  const useValues = (topic) => useMap(useStream()?.state(topic));

  /** @param {string} topic */
  const useMembers = (topic) => /** @type {any} */ (useMap(useStream()?.members(topic)));

  return { UnmissedProvider, useMembers, useMessages, useStatus, useStream, useValues };
};

export const { UnmissedProvider, useMembers, useMessages, useStatus, useStream, useValues } = createUnmissed();
