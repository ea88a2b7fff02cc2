"use strict";
// Maps over the dataset, one for each output or label: found by search, drawn over the mean image on one scale.

augnet.maps = (() => {
  const { element, labelled, choice, format } = augnet;
  const SHOWN = 24, LEVELS = 127, SIDE = 224;
  const state = { group: 0, kind: "mean_abs", search: "", order: "number", scale: "one", opacity: 0.75, shown: SHOWN };
  let mean = null;

  /** A promise of one map: its values and their largest magnitude. */
  async function map(group, place, kind) {
    const number = Math.floor(place / group.sheet), inside = place % group.sheet;
    const name = `maps-${group.key}-${String(number).padStart(3, "0")}`;
    const sheet = await augnet.load(name);
    sheet.bytes ??= augnet.unpack(sheet.maps);
    const kinds = Object.keys(augnet.data.kinds), at = kinds.indexOf(kind);
    const size = group.size[0] * group.size[1], start = (inside * kinds.length + at) * size;
    const limit = sheet.scale[inside][at] ?? 0;
    return { limit, values: Float32Array.from((await sheet.bytes).subarray(start, start + size), (step) => (step / LEVELS) * limit) };
  }

  async function meanPicture() {
    if (!mean) {
      mean = new Image();
      mean.src = augnet.data.mean.address;
    }
    await mean.decode();
    return mean;
  }

  /** Draws a map over the mean image, and frames around places in pixels of the model's input. */
  async function draw(canvas, group, place, { kind, limit, opacity, places = [] }) {
    const [found, below] = await Promise.all([map(group, place, kind), meanPicture()]);
    const [height, width] = augnet.data.sheet.input, factor = SIDE / Math.max(height, width);
    const context = augnet.colors.sized(canvas, Math.round(height * factor), Math.round(width * factor));
    context.imageSmoothingEnabled = false;
    context.drawImage(below, 0, 0, canvas.width, canvas.height);
    const layer = augnet.colors.paint(document.createElement("canvas"), found.values, group.size, kind === "signed", limit ?? found.limit, kind === "signed" && opacity < 1);
    context.globalAlpha = opacity;
    context.drawImage(layer, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    for (const [color, thickness] of [["#000", 4], ["#5adcff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = thickness;
      for (const { y, x, height: h, width: w } of places) context.strokeRect(x * factor, y * factor, w * factor, h * factor);
    }
    return found;
  }

  /** The map of an output with the places of a finding. */
  function outlined(output, places) {
    const group = augnet.data.maps[0], place = group.numbers.indexOf(output);
    if (place < 0) return [];
    const canvas = element("canvas", { role: "img", "aria-label": `Where ${group.names[place]} looks, the place framed` });
    augnet.whenSeen(canvas, () => draw(canvas, group, place, { kind: "mean_abs", opacity: state.opacity, places }));
    const note = places.length ? " looks on average; the place is framed" : " looks on average";
    return [element("figure", { class: "exhibit" }, canvas, element("figcaption", {}, augnet.nameOf(group.names[place]), note))];
  }

  function found(group) {
    const search = state.search.trim().toLowerCase();
    const places = group.names.map((_, k) => k).filter((k) => group.names[k].toLowerCase().includes(search));
    if (state.order === "strength") places.sort((a, b) => (group.mean[b] ?? 0) - (group.mean[a] ?? 0) || a - b);
    if (state.order === "count") places.sort((a, b) => group.counts[b] - group.counts[a] || a - b);
    return places;
  }

  function tile(group, place) {
    const limit = state.scale === "one" ? group.largest[state.kind] : null;
    const canvas = element("canvas", { role: "img", "aria-label": `${augnet.data.kinds[state.kind]} of ${group.names[place]}` });
    augnet.colors.sized(canvas, SIDE, Math.round((SIDE * augnet.data.sheet.input[1]) / augnet.data.sheet.input[0]));
    const about = `${format(group.counts[place])} images, mean ${format(group.mean[place])} per pixel`;
    const note = element("span", { text: about });
    augnet.whenSeen(canvas, async () => {
      const { values, limit: own } = await draw(canvas, group, place, { ...state, limit });
      if (state.scale !== "one") note.textContent = `${about}; up to ${format(own)}`;
      canvas.addEventListener("pointermove", (event) => {
        const [height, width] = group.size, box = canvas.getBoundingClientRect();
        const y = Math.floor(((event.clientY - box.top) / box.height) * height), x = Math.floor(((event.clientX - box.left) / box.width) * width);
        if (values[y * width + x] !== undefined) note.textContent = `row ${y}, column ${x}: ${format(values[y * width + x])}`;
      });
      canvas.addEventListener("pointerleave", () => { note.textContent = about; });
    });
    return element("figure", {}, canvas, element("figcaption", {}, augnet.nameOf(group.names[place]), element("br"), note), ...spectrum(group, place));
  }

  /** The energy of an output's rows by spatial frequency, in bars up to that of the corners. */
  function spectrum(group, place) {
    const curve = group.curves?.[place] ?? [];
    if (!curve.length) return [];
    const most = Math.max(...curve), half = group.nyquist / 2, total = curve.reduce((sum, part) => sum + part, 0);
    const high = curve.slice(half).reduce((sum, part) => sum + part, 0) / total;
    const bars = curve.map((part, k) => element("rect", { x: k, y: 30 * (1 - part / most), width: 0.9, height: (30 * part) / most }));
    const text = `${Math.round(100 * high)} % of the energy beyond the line`;
    const plot = element("svg", { class: "spectrum", viewBox: `0 0 ${curve.length} 30`, preserveAspectRatio: "none", role: "img", "aria-label": `Energy by spatial frequency of ${group.names[place]}: ${text}` },
      ...bars, element("line", { class: "median", x1: half, x2: half, y1: 0, y2: 30 }));
    const ends = element("div", { class: "axis" }, element("span", { text: "coarse" }), element("span", { text: "fine" }));
    return [plot, ends, element("figcaption", { text })];
  }

  function show() {
    const group = augnet.data.maps[state.group], places = found(group);
    const list = document.getElementById("map-list"), bar = document.getElementById("map-bar");
    list.replaceChildren(...places.slice(0, state.shown).map((place) => tile(group, place)));
    if (places.length > state.shown) {
      const more = () => { state.shown += SHOWN; show(); };
      list.append(element("button", { type: "button", text: `${places.length - state.shown} more`, onclick: more }));
    }
    const one = state.scale === "one" && group.largest[state.kind] != null;
    bar.replaceChildren(...(one ? augnet.colors.bar(state.kind === "signed", group.largest[state.kind], "output per unit of input") : ["Each map has its own scale."]));
    if (!places.length) list.replaceChildren(element("p", { text: "No map has this name." }));
  }

  function start() {
    const { maps, kinds } = augnet.data;
    const control = (name, made) => {
      made.id = `map-${name}`;
      made.value = state[name];
      made.addEventListener("input", () => { Object.assign(state, { [name]: made.value, shown: SHOWN }); show(); });
      return made;
    };
    const groups = maps.map(({ key }, k) => [k, key === "output" ? "outputs" : "labels (the predicted row)"]);
    document.getElementById("map-tools").append(
      labelled("Maps of", control("group", choice({}, groups))),
      labelled("Show", control("kind", choice({}, Object.entries(kinds)))),
      labelled("Name or number", control("search", element("input", { type: "search", size: 14 }))),
      labelled("Order", control("order", choice({}, [["number", "by number"], ["strength", "strongest first"], ["count", "most images first"]]))),
      labelled("Scale", control("scale", choice({}, [["one", "one for all"], ["own", "each its own"]]))),
      labelled("Opacity", control("opacity", element("input", { type: "range", min: 0, max: 1, step: 0.05 }))),
    );
    show();
  }

  return { start, outlined };
})();
