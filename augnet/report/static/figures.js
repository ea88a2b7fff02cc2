"use strict";
// Figures over all images: histograms that select, slices, and matrices of labels, predictions and outputs.

augnet.figures = (() => {
  const { element, nameOf, labelled, choice, format } = augnet;
  const WIDTH = 240, HEIGHT = 84, LARGEST_MATRIX = 25, ROWS = 30;

  /** A histogram; a click on a bar, or a drag over several, selects the images in that range. */
  function histogram({ name, label, unit, figures, histogram: { low, high, counts } }) {
    const most = Math.max(...counts), step = WIDTH / counts.length, span = (high - low) / counts.length;
    const bars = counts.map((count, k) => {
      const tall = count ? Math.max(1.5, (HEIGHT * count) / most) : 0;
      return element("rect", { x: k * step, y: HEIGHT - tall, width: step - 0.6, height: tall });
    });
    const middle = ((figures.q50 - low) / (high - low)) * WIDTH;
    const plot = element("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      ...bars, element("line", { class: "median", x1: middle, x2: middle, y1: 0, y2: HEIGHT }));
    const select = (from, to) => {
      const [first, last] = [Math.min(from, to), Math.max(from, to)];
      bars.forEach((bar, k) => bar.classList.toggle("picked", k >= first && k <= last));
      const ends = { low: first === 0 ? "" : edge(low + first * span), high: last === counts.length - 1 ? "" : edge(low + (last + 1) * span) };
      augnet.filters.show({ sort: name, statistic: name, ...ends });
    };
    let from = null;
    const under = (event) => Math.max(0, Math.min(counts.length - 1, Math.floor((event.offsetX / plot.clientWidth) * counts.length)));
    plot.addEventListener("pointerdown", (event) => { from = under(event); plot.setPointerCapture(event.pointerId); });
    plot.addEventListener("pointerup", (event) => { if (from !== null) select(from, under(event)); from = null; });
    const extremes = ["lowest", "highest"].map((order) =>
      element("button", { type: "button", text: order, "aria-label": `Images with the ${order} ${name}`, onclick: () => augnet.filters.show({ sort: name, order }) }));
    const caption = element("figcaption", {}, element("b", { text: name }), ` ${label}${unit ? `; unit: ${unit}` : ""}. Mean ${format(figures.mean)}, median ${format(figures.q50)}` +
      (figures.mean_error == null ? "" : `; standard error ${format(figures.mean_error)} on average`) +
      (figures.auroc_wrong == null ? "" : `; AUROC of error ${format(figures.auroc_wrong)}`));
    return element("figure", {}, plot, element("div", { class: "axis" }, format(low), element("span", { class: "buttons" }, ...extremes), format(high)), caption);
  }

  const edge = (value) => String(Number(value.toPrecision(6)));

  function table(label, head, rows, kind = "") {
    const header = element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)));
    return element("div", { class: `scroll tall ${kind}`, role: "region", tabindex: 0, "aria-label": label },
      element("table", {}, element("thead", {}, header), element("tbody", {}, ...rows)));
  }

  /** Rows, some at first and all on demand. */
  function long(rows, shown, fill) {
    const more = element("button", { type: "button", text: `show all ${rows.length}`, onclick: () => fill(rows) });
    fill(rows.slice(0, shown));
    return rows.length > shown ? [more] : [];
  }

  async function slices() {
    const { figures, columns } = await augnet.load("slices");
    const statistics = augnet.data.statistics.map(({ name }) => [name, name]);
    const names = Object.keys(columns);
    if (!names.length || !statistics.length) return;
    const column = choice({ id: "slice-column" }, names.map((name) => [name, name]));
    const statistic = choice({ id: "slice-statistic" }, statistics);
    const search = element("input", { type: "search", size: 14, id: "slice-search" });
    const show = () => document.getElementById("slice-list").replaceChildren(...sliceTable(figures, columns[column.value], column.value, statistic.value, search.value));
    for (const control of [column, statistic, search]) control.addEventListener("input", show);
    document.getElementById("slice-tools").append(labelled("Statistic", statistic), labelled("by", column), labelled("Value", search));
    show();
  }

  function sliceTable(figures, { values, statistics }, column, statistic, search) {
    const cells = statistics[statistic] ?? [];
    const name = (value) => (column === "predicted" ? augnet.data.outputs[value] ?? value : value);
    const known = values.map((value, k) => [name(value), cells[k], value]).filter(([text, cell]) => cell && text.toLowerCase().includes(search.trim().toLowerCase()));
    const at = Object.fromEntries(figures.map((figure, k) => [figure, k]));
    known.sort((a, b) => a[1][at.q50] - b[1][at.q50]);
    const low = Math.min(...known.map(([, cell]) => cell[at.q05])), high = Math.max(...known.map(([, cell]) => cell[at.q95]));
    const filters = { label: (value) => ({ label: `=${value}` }), predicted: (value) => ({ predicted: value }), correct: (value) => ({ correct: value === "true" ? "right" : "wrong" }) };
    const head = (text, value) => (filters[column] ? element("button", { type: "button", title: text, onclick: () => augnet.filters.show({ sort: statistic, ...filters[column](value) }) }, nameOf(text)) : nameOf(text));
    const rows = known.map(([text, cell, value]) => element("tr", {},
      element("th", { scope: "row" }, head(text, value)),
      ...["count", "mean", "q05", "q50", "q95"].map((figure) => element("td", { text: format(cell[at[figure]]) })),
      element("td", {}, box(cell.map((number) => ((number - low) / (high - low || 1)) * 100), at))));
    const body = element("tbody");
    const more = long(rows, ROWS, (part) => body.replaceChildren(...part));
    const made = table(`${statistic} by ${column}`, [column, "images", "mean", "5 %", "median", "95 %", "5 to 95 %, quartiles, median"], []);
    made.querySelector("tbody").replaceWith(body);
    return [made, ...more];
  }

  /** Line from 5 to 95 %, box of the quartiles, median; in per cent of the widest range. */
  function box(cell, at) {
    const [q05, q25, q50, q75, q95] = ["q05", "q25", "q50", "q75", "q95"].map((name) => cell[at[name]]);
    return element("svg", { class: "box", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      element("line", { x1: q05, x2: q95, y1: 5, y2: 5 }), element("rect", { x: q25, y: 2, width: Math.max(0.6, q75 - q25), height: 6 }),
      element("line", { class: "median", x1: q50, x2: q50, y1: 0, y2: 10 }));
  }

  /** A matrix of small numbers, coloured by their share of the row's sum or, where signed, by themselves. */
  function matrix(label, names, columns, cell, shade) {
    const head = ["", ...columns.map((text) => nameOf(text))];
    const rows = names.map((text, i) => element("tr", {}, element("th", { scope: "row" }, nameOf(text)), ...columns.map((_, j) => {
      const value = cell(i, j), strength = value == null ? 0 : Math.round(100 * shade(i, j));
      const made = element("td", { class: "cell", text: value == null ? "" : format(value) });
      made.style.background = `color-mix(in srgb, var(${value < 0 ? "--alarm" : "--bar"}) ${Math.min(60, strength * 0.6)}%, transparent)`;
      return made;
    })));
    return table(label, head, rows, "heat");
  }

  function confusion() {
    const { cells, left_out } = augnet.data.confusion, { outputs } = augnet.data;
    if (!cells.length) return null;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const labels = [...new Set(cells.map(([label]) => label))].sort(compare);
    const predicted = [...new Set(cells.map(([, output]) => output))].sort((a, b) => a - b);
    const heading = element("h3", { text: "Label and prediction" });
    if (Math.max(labels.length, predicted.length) <= LARGEST_MATRIX) {
      const count = new Map(cells.map(([label, output, images]) => [`${output} ${label}`, images]));
      const at = (i, j) => count.get(`${predicted[j]} ${labels[i]}`);
      const sums = labels.map((_, i) => predicted.reduce((sum, __, j) => sum + (at(i, j) ?? 0), 0));
      return [heading, matrix("Images by label and prediction", labels, predicted.map((k) => outputs[k] ?? String(k)), at, (i, j) => at(i, j) / sums[i])];
    }
    const rows = cells.filter(([label, output]) => (outputs[output] ?? "") !== label && !(outputs[output] ?? "").endsWith(`(${label})`) && outputs[output] !== `output ${label}`);
    return [heading, ...list("Most frequent confusions", ["label", "predicted", "images", ""], rows, left_out, ([label, output, images]) => [
      nameOf(label), nameOf(outputs[output] ?? String(output)), format(images),
      element("button", { type: "button", text: "show", onclick: () => augnet.filters.show({ label: `=${label}`, predicted: String(output), sort: "image_id" }) })])];
  }

  function pairs() {
    const { cells, left_out } = augnet.data.pairs, { outputs } = augnet.data;
    if (!cells.length) return null;
    const heading = element("h3", { text: "Pairs of outputs: how alike their rows are (mean cosine), and how often the second is the first's rival" });
    const used = [...new Set(cells.map(([output]) => output))].sort((a, b) => a - b);
    if (used.length <= LARGEST_MATRIX) {
      const found = new Map(cells.map(([i, j, cosine]) => [`${i} ${j}`, cosine])), names = used.map((k) => outputs[k]);
      const at = (i, j) => found.get(`${used[i]} ${used[j]}`);
      return [heading, matrix("Mean cosine of rows", names, names, at, (i, j) => Math.abs(at(i, j))), ...pairList(cells.slice(0, 200), left_out)];
    }
    return [heading, ...pairList(cells, left_out)];
  }

  function pairList(cells, left_out) {
    const { outputs } = augnet.data;
    return list("Pairs of outputs", ["output", "other", "mean cosine", "times the rival"], cells, left_out, ([i, j, cosine, rival]) =>
      [nameOf(outputs[i]), nameOf(outputs[j]), format(cosine), format(rival)]);
  }

  /** A table of lists, searched by name, some rows at a time. */
  function list(label, head, cells, left_out, cellsOf) {
    const search = element("input", { type: "search", size: 14 }), body = element("tbody"), rest = element("div");
    const made = table(label, head, []);
    made.querySelector("tbody").replaceWith(body);
    const row = (cell) => element("tr", {}, ...cellsOf(cell).map((part, k) => element("td", { class: k < 2 ? "text" : null }, part)));
    for (const heading of [...made.querySelectorAll("th")].slice(0, 2)) heading.classList.add("text"); // both are names
    const show = () => {
      const wanted = search.value.trim().toLowerCase(), { outputs } = augnet.data;
      const fits = ([a, b]) => [a, b].some((part) => String(outputs[part] ?? part).toLowerCase().includes(wanted));
      rest.replaceChildren(...long(cells.filter(fits), ROWS, (part) => body.replaceChildren(...part.map(row))));
    };
    search.addEventListener("input", show);
    show();
    const note = left_out ? [element("p", { class: "soft", text: `${format(left_out)} rarer ones are left out.` })] : [];
    return [element("div", { class: "tools" }, labelled(`${label}: name`, search)), made, rest, ...note];
  }

  function start() {
    document.getElementById("histograms").append(...augnet.data.statistics.map(histogram));
    augnet.whenSeen(document.getElementById("slices"), slices);
    augnet.whenSeen(document.getElementById("pairs"), () => {
      for (const [place, made] of [["confusion", confusion()], ["pair-list", pairs()]]) {
        if (made) document.getElementById(place).replaceChildren(...made);
      }
    });
  }

  return { start };
})();
