// Keeps a page fresh: asks for it again when the server tells of something, and now and then besides, and puts in place what
// differs. Without it the page is the same, as of when it was loaded. It sends nothing but GET to the server the page is from.
"use strict";

(() => {
  const main = document.getElementById("main");
  const pulse = document.getElementById("pulse");
  const every = Number(main.dataset.refresh) || 5000;
  const SOON = 250; // after an event: more of them mostly follow at once
  let timer = 0;
  let events = null;
  let asking = null;

  // Makes `old` what `fresh` is, and keeps what is the same: focus, selection and scrolling stay where they are.
  function put(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    putChildren(old, fresh);
  }

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id : "");

  function putChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const key = keyOf(wanted);
      let found = key ? keyed.get(key) : at;
      if (!key) while (found && (keyOf(found) || found.nodeName !== wanted.nodeName)) found = found.nextSibling;
      if (found && found.nodeName === wanted.nodeName) {
        if (found === at) at = at.nextSibling;
        else old.insertBefore(found, at);
        put(found, wanted);
      } else {
        old.insertBefore(document.importNode(wanted, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  function say(text, away) {
    pulse.hidden = false;
    pulse.classList.toggle("away", away);
    if (pulse.textContent !== text) pulse.textContent = text;
  }

  async function refresh() {
    clearTimeout(timer);
    if (asking) asking.abort();
    const mine = (asking = new AbortController());
    try {
      const answer = await fetch(location.href, { signal: mine.signal, cache: "no-store", headers: { accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
      if (mine !== asking) return;
      if (!fresh) throw new Error("no page");
      putChildren(main, fresh);
      say("live", false);
    } catch (error) {
      if (mine !== asking || error.name === "AbortError") return;
      say("no answer, trying on", true);
    }
    asking = null;
    plan(every);
  }

  function plan(wait) {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, wait);
  }

  // A browser keeps few connections to one server, so a page that nobody looks at holds none.
  function follow() {
    if (document.hidden) {
      clearTimeout(timer);
      if (events) events.close();
      events = null;
      return;
    }
    if (main.dataset.events && !events) {
      events = new EventSource(main.dataset.events);
      for (const kind of ["peer", "peer_left", "files", "reload"]) events.addEventListener(kind, () => plan(SOON));
    }
    plan(0);
  }

  const search = document.getElementById("q");
  if (search) {
    let typing = 0;
    search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        const q = search.value.trim();
        const { pathname } = new URL(search.form.action);
        history.replaceState(null, "", q ? `${pathname}?q=${encodeURIComponent(q)}` : pathname);
        refresh();
      }, 150);
    });
  }

  document.addEventListener("visibilitychange", follow);
  follow();
})();
