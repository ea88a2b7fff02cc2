"use strict";
// The namespace of the page's scripts, data that comes as scripts, and small helpers for the document.

const augnet = (() => {
  const received = {}, loading = {};

  /** Called by every data file with its own name. */
  function receive(name, value) {
    received[name] = value;
  }

  /** A promise of the data that the file NAME.js beside the page hands over; it is loaded once. */
  function load(name) {
    loading[name] ??= new Promise((done, failed) => {
      const script = element("script", { src: `${name}.js` });
      script.onload = () => done(received[name]);
      script.onerror = () => failed(new Error(`${name}.js cannot be loaded`));
      document.head.append(script);
    });
    return loading[name];
  }

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  /** A promise of the bytes, as signed integers, that assets.packed made. */
  async function unpack(base64) {
    const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Int8Array(await new Response(stream).arrayBuffer());
  }

  /** An element with attributes, properties (text, on...) and children. Text is always text, never markup. */
  function element(tag, attributes = {}, ...children) {
    const svg = ["svg", "rect", "line"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") made.textContent = value;
      else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  /** A name from the data: isolated from the direction of the text around it, cut where it is long. */
  function nameOf(text) {
    return element("bdi", { class: "name", title: text, text });
  }

  /** A labelled control. */
  function labelled(text, control) {
    return element("label", {}, text, control);
  }

  /** A choice of [value, text] pairs. */
  function choice(attributes, options) {
    return element("select", attributes, ...options.map(([value, text]) => element("option", { value, text })));
  }

  /** Four digits, or a dash for what is not known. */
  function format(value) {
    if (value == null || Number.isNaN(value)) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  }

  /** Calls `show` when the element comes near the screen, or is about to be printed; once. */
  function whenSeen(target, show) {
    const once = () => {
      watcher.disconnect();
      removeEventListener("beforeprint", once);
      show();
    };
    const watcher = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && once(), { rootMargin: "300px" });
    watcher.observe(target);
    addEventListener("beforeprint", once);
  }

  return {
    receive, load, bytes, unpack, element, nameOf, labelled, choice, format, whenSeen,
    get data() { return received.report; },
  };
})();
