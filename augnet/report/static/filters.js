"use strict";
// Which images are shown, and in what order: the state that the controls, histograms and buttons set.

augnet.filters = (() => {
  const { element, labelled, choice } = augnet;
  const NONE = { sort: "", order: "lowest", label: "", predicted: "", correct: "", flag: "", statistic: "", low: "", high: "", search: "", only: null };
  const state = { ...NONE };
  const listeners = [], controls = {};

  /** The images that pass, as places in the columns, in order; those without a value come last. */
  function selected() {
    const { images } = augnet.data, search = state.search.trim().toLowerCase();
    const inRange = range(images[state.statistic]);
    const passing = images.image_id.map((_, k) => k).filter((k) =>
      (!state.only || state.only.has(images.image_id[k])) &&
      (!state.label || `=${images.label[k] ?? ""}` === state.label) &&
      (!state.predicted || String(images.predicted[k]) === state.predicted) &&
      (!state.correct || images.correct[k] === (state.correct === "right")) &&
      (!state.flag || (state.flag === "any" ? images.flags[k].length > 0 : images.flags[k].includes(state.flag))) &&
      (!search || images.image_id[k].toLowerCase().includes(search)) && inRange(k));
    return passing.sort(comparison(images[state.sort], state.order === "lowest" ? 1 : -1));
  }

  function range(values) {
    const low = state.low === "" ? -Infinity : Number(state.low), high = state.high === "" ? Infinity : Number(state.high);
    if (!values || (low === -Infinity && high === Infinity)) return () => true;
    return (k) => values[k] != null && values[k] >= low && values[k] <= high;
  }

  function comparison(values, sign) {
    return (a, b) => {
      if (values[a] == null || values[b] == null) return (values[a] == null) - (values[b] == null) || a - b;
      return (values[a] < values[b] ? -sign : values[a] > values[b] ? sign : 0) || a - b;
    };
  }

  /** Changes some of the state; with `fresh` everything else goes back to where it was at first. */
  function set(changes, fresh = false) {
    Object.assign(state, fresh ? { ...NONE, ...augnet.data.first } : {}, changes);
    for (const [name, control] of Object.entries(controls)) control.value = state[name];
    for (const listener of listeners) listener();
  }

  /** Sorts by a column, and the other way round where it is sorted by it already. */
  function sortBy(name) {
    const turned = state.sort === name && state.order === "lowest" ? "highest" : "lowest";
    set({ sort: name, order: turned });
  }

  /** Shows these images alone, and takes the reader to them. */
  function show(changes) {
    set(changes, true);
    document.getElementById("images").scrollIntoView();
    document.getElementById("matches").focus({ preventScroll: true });
  }

  function control(name, made) {
    controls[name] = made;
    made.id = `filter-${name}`;
    made.addEventListener("input", () => set({ [name]: made.value }));
    return made;
  }

  function fill(form) {
    const { images, outputs, statistics } = augnet.data;
    const known = (values) => [...new Set(values.filter((value) => value != null))];
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const labels = known(images.label).sort(compare);
    const predicted = known(images.predicted).sort((a, b) => a - b);
    const flags = known(images.flags.flat());
    const names = statistics.map(({ name }) => [name, name]);
    const number = () => element("input", { type: "number", step: "any" });
    form.addEventListener("submit", (event) => event.preventDefault());
    const several = (text, made, options) => (options.length ? [labelled(text, made)] : []);
    form.append(
      labelled("Sort by", control("sort", choice({}, [["image_id", "name"], ["label", "label"], ["predicted", "predicted"], ["rival", "rival"], ...names]))),
      labelled("First", control("order", choice({}, [["lowest", "lowest"], ["highest", "highest"]]))),
      labelled("Name", control("search", element("input", { type: "search", size: 14 }))),
      ...several("Label", control("label", choice({}, [["", "all"], ...labels.map((label) => [`=${label}`, label])])), labels),
      ...several("Predicted", control("predicted", choice({}, [["", "all"], ...predicted.map((k) => [k, outputs[k] ?? k])])), predicted.slice(1)),
      ...several("Prediction", control("correct", choice({}, [["", "all"], ["right", "right"], ["wrong", "wrong"]])), known(images.correct)),
      ...several("Flag", control("flag", choice({}, [["", "all"], ["any", "any flag"], ...flags.map((flag) => [flag, flag])])), flags),
      element("span", { class: "group" }, labelled("Range of", control("statistic", choice({}, [["", "–"], ...names]))),
        labelled("from", control("low", number())), labelled("to", control("high", number()))),
      element("button", { type: "button", id: "reset", text: "Show all", onclick: () => set({}, true) }),
    );
  }

  return { state, selected, set, sortBy, show, fill, whenChanged: (listener) => listeners.push(listener) };
})();
