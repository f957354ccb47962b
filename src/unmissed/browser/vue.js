/**
 * Vue: composables that provide the stream in one component, and use it there and in those below.
 *
 * @import { ComponentInternalInstance, InjectionKey, ShallowRef } from "vue"
 * @import { LiveMap, Status, Stream } from "./types.js"
 * @import * as types from "./vue.js"
 */

import * as Vue from "vue";

import { changeTopics, copiesOf } from "./topics.js";
import { connect } from "./unmissed.js";

/** @typedef {ShallowRef<Stream<any, any> | undefined>} StreamRef */

/** @type {types.createUnmissed} */
export const createUnmissed = () => {
  /** @type {InjectionKey<StreamRef>} */
  const key = Symbol("unmissed");
  /** @type {WeakMap<ComponentInternalInstance, StreamRef>} By component: `inject` finds only what those above provide. */
  const own = new WeakMap();

  /**
   * @param {Vue.MaybeRefOrGetter<string | URL>} url
   * @param {types.ProvideOptions<any>} [options]
   */
  const provideUnmissed = (url, { topics, ...options } = {}) => {
    /** @type {StreamRef} */
    const stream = Vue.shallowRef();
    const address = () => String(Vue.toValue(url));
    const chosen = () => Vue.toValue(topics)?.slice();
    /** @type {string[]} */
    let followed = [];
    const open = () => {
      stream.value?.close();
      stream.value = connect(address(), { ...options, topics: chosen() });
      followed = chosen() ?? [];
    };
    const change = (/** @type {string[] | undefined} */ changed) => {
      if (stream.value && changed) followed = changeTopics(stream.value, followed, changed);
    };
    // Servers render pages, and do not connect.
    if (globalThis.document) {
      // Other topics need no other connection, unless they were chosen by the token before.
      Vue.watch([address, () => !chosen()], open, { immediate: true });
      Vue.watch(chosen, change);
      Vue.onScopeDispose(() => stream.value?.close());
    }
    Vue.provide(key, stream);
    own.set(/** @type {ComponentInternalInstance} */ (Vue.getCurrentInstance()), stream);
    return stream;
  };

  const useStream = () => {
    const instance = Vue.getCurrentInstance();
    const stream = (instance && own.get(instance)) ?? Vue.inject(key, null);
    if (!stream) throw new Error("there is no stream: call provideUnmissed(url) in this component, or in one above it");
    return stream;
  };

  /**
   * Calls a function with each stream, and what it returns before the next one, or when the component is unmounted.
   *
   * @param {(stream: Stream<any, any>) => () => void} begin
   */
  const withStream = (begin) => {
    /** @type {(stream: Stream | undefined, before: unknown, onCleanup: (end: () => void) => void) => void} */
    const changed = (stream, _, onCleanup) => stream && onCleanup(begin(stream));
    Vue.watch(useStream(), changed, { immediate: true, flush: "sync" });
  };

  const useStatus = () => {
    const status = Vue.ref(/** @type {Status} */ ("connecting"));
    withStream((stream) => {
      const update = () => {
        status.value = stream.status;
      };
      update();
      stream.addEventListener("status", update);
      return () => stream.removeEventListener("status", update);
    });
    return Vue.readonly(status);
  };

  /**
   * @param {string} type
   * @param {(message: any) => void} handler
   */
  const useMessages = (type, handler) => withStream((stream) => stream.on(type, handler));

  /** @param {(stream: Stream<any, any>) => LiveMap<any>} mapOf */
  const useMap = (mapOf) => {
    const stream = useStream();
    const shown = Vue.shallowRef(new Map());
    const show = (/** @type {LiveMap<any> | undefined} */ map, /** @type {any} */ _, /** @type {any} */ onCleanup) => {
      const { current, subscribe } = copiesOf(map);
      const update = () => (shown.value = current());
      update();
      onCleanup(subscribe(update));
    };
    Vue.watch(() => stream.value && mapOf(stream.value), show, { immediate: true, flush: "sync" });
    return shown;
  };

  /** @param {Vue.MaybeRefOrGetter<string | undefined>} [topic] */
  const useValues = (topic) => useMap((stream) => stream.state(Vue.toValue(topic)));

  /** @param {Vue.MaybeRefOrGetter<string>} topic */
  const useMembers = (topic) => useMap((stream) => stream.members(Vue.toValue(topic)));

  return { provideUnmissed, useMembers, useMessages, useStatus, useStream, useValues };
};

export const { provideUnmissed, useMembers, useMessages, useStatus, useStream, useValues } = createUnmissed();
