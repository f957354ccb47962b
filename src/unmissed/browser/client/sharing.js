/**
 * The tabs that share a connection. One of them leads: it holds the lock of the group, and the connection. It passes the
 * frames of the server on to the other tabs, which send it their requests.
 *
 * @import { Frame } from "../types.js"
 */

/**
 * What happens in the group.
 *
 * @typedef {object} Member
 * @property {() => void} reopen This tab begins, or ceases, to lead.
 * @property {(request: Frame) => void} serve Another tab has a request for the one that leads.
 */

/** The version of what tabs send each other. Tabs with another one have their own group, as after a deployment. */
const VERSION = 2;

/** @typedef {ReturnType<typeof createTabGroup>} TabGroup */

/**
 * @param {string} name Empty for a tab without a group.
 * @param {Member} member
 */
export const createTabGroup = (name, member) => {
  // Missing without HTTPS.
  let group = name && globalThis.navigator?.locks ? `${name},v${VERSION}` : "";
  let claim = {};
  /** @type {(value?: unknown) => void} Gives the lock up. */
  let release = () => {};

  const tabs = {
    leads: false,
    /** @type {BroadcastChannel | undefined} */
    tabPort: undefined,

    /** Returns whether the connection of another tab is used. */
    follows: () => Boolean(group) && !tabs.leads,

    join() {
      if (!group || tabs.tabPort) return;
      tabs.tabPort = new BroadcastChannel(group);
      tabs.compete();
    },

    leave() {
      tabs.leads = false;
      claim = {};
      release();
      tabs.tabPort?.close();
      tabs.tabPort = undefined;
    },

    /** Waits for the lock. @param {boolean} [steal] Whether to take it from a tab that is not heard. */
    compete(steal = false) {
      const mine = {};
      claim = mine;
      const hold = () => (mine === claim ? lead() : undefined);
      navigator.locks.request(group, { steal }, hold).catch((error) => {
        if (mine !== claim) return;
        if (error.name === "AbortError") tabs.compete();
        else group = "";
        setLead(false);
      });
    },

    /** @param {object} data */
    postData(data) {
      tabs.tabPort?.postMessage(data);
    },

    /**
     * Passes a frame on. A tab whose position is below `previous` has missed something.
     *
     * @param {Frame} frame
     * @param {string | undefined} epoch
     * @param {number | undefined} before The position of the connection before the frame.
     */
    shareFrame(frame, epoch, before) {
      tabs.postData({ frame, epoch, previous: frame.type === "connected" ? frame.sequence_number : before });
    },
  };

  const lead = () =>
    new Promise((resolve) => {
      release = resolve;
      setLead(true);
    });

  /** @param {boolean} leads */
  const setLead = (leads) => {
    tabs.leads = leads;
    if (tabs.tabPort) {
      tabs.tabPort.onmessage = ({ data }) => {
        if (data.request) member.serve(data.request);
      };
    }
    member.reopen();
  };

  return tabs;
};
