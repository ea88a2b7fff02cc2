"use strict";
// The image table and the gallery: a page at a time of the images that the filters let through.

augnet.table = (() => {
  const { element, nameOf, labelled, choice, format } = augnet;
  const PAGE = { table: 25, gallery: 60 };
  const ROWS = ["predicted", "rival", "difference"];
  const look = { view: "table", name: "predicted", signed: false, opacity: 0.6 };
  let page = 0, chosen = [];

  /** What is drawn: one row, or the row that was chosen for the overlay. */
  const overlaid = () => ({ name: look.name, signed: look.signed, opacity: look.opacity });
  const plain = () => ({ ...overlaid(), opacity: 0 });
  const alone = (name) => () => ({ name, signed: look.signed, opacity: 1 });

  /** A button with the image, and the chosen row over it or not, which opens the viewer. */
  function exhibit(image, list, caption = [], shown = overlaid) {
    const { image_id } = augnet.data.images;
    const picture = augnet.pictures.canvas(image, shown, "");
    const open = () => augnet.viewer.open(image, list, look);
    const name = caption.length ? null : `Enlarge ${image_id[image]}`;
    return element("button", { class: "exhibit", type: "button", "aria-label": name, onclick: open }, picture, ...caption);
  }

  function columns() {
    const { images, outputs, statistics } = augnet.data;
    const output = (k) => (k == null ? "–" : outputs[k] ?? String(k));
    const right = { true: "right", false: "wrong", null: "–" };
    const some = (name) => images[name].some((value) => value != null);
    const text = [
      some("label") && ["label", "label", (k) => nameOf(images.label[k] ?? "–")],
      some("predicted") && ["predicted", "predicted", (k) => nameOf(output(images.predicted[k]))],
      some("correct") && [null, "is", (k) => right[images.correct[k]]],
      some("rival") && ["rival", "rival", (k) => nameOf(output(images.rival[k]))],
      images.flags.some((flags) => flags.length) && [null, "flags", (k) => images.flags[k].join(", ")],
    ].filter(Boolean);
    const first = (name) => (name === "probability" ? 0 : name === "margin_l2" ? 1 : 2);
    const ordered = [...statistics].sort((a, b) => first(a.name) - first(b.name));
    return [...text, ...ordered.map(({ name }) => [name, name, (k) => format(images[name][k])])];
  }

  function table(shown) {
    const { images } = augnet.data, { state } = augnet.filters, cells = columns();
    const sorted = (name) => (state.sort !== name ? null : state.order === "lowest" ? "ascending" : "descending");
    const head = ([name, text]) => element("th", { scope: "col", "aria-sort": sorted(name) },
      name ? element("button", { type: "button", text, onclick: () => augnet.filters.sortBy(name) }) : text);
    const pictures = ROWS.filter((name) => name === "predicted" || images.rival.some((rival) => rival != null));
    const header = element("tr", {}, head(["image_id", "image"]), element("th", { scope: "col", text: "overlay" }),
      ...pictures.map((name) => element("th", { scope: "col", text: name === "difference" ? name : `${name} row` })), ...cells.map(head));
    const lines = shown.map((k) => element("tr", {},
      element("th", { scope: "row" }, fileOf(k)),
      element("td", {}, exhibit(k, chosen)),
      ...pictures.map((name) => element("td", {}, augnet.pictures.canvas(k, alone(name), `${name} row of ${images.image_id[k]}`))),
      ...cells.map(([, , cell]) => element("td", {}, cell(k)))));
    return element("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Images" },
      element("table", {}, element("thead", {}, header), element("tbody", {}, ...lines)));
  }

  function gallery(shown) {
    const { images } = augnet.data, { sort } = augnet.filters.state;
    const value = (k) => (typeof images[sort]?.[k] === "number" ? `${sort} ${format(images[sort][k])}` : "");
    return element("div", { class: "tiles" }, ...shown.map((k) => exhibit(k, chosen,
      [nameOf(images.image_id[k]), element("br"), element("span", { class: "soft", text: value(k) })])));
  }

  /** The image's name, as a link to its file where a browser can open it. */
  function fileOf(k) {
    const { image_id, href } = augnet.data.images;
    return href[k] ? element("a", { href: href[k] }, nameOf(image_id[k])) : nameOf(image_id[k]);
  }

  function draw() {
    const list = document.getElementById("image-list"), size = PAGE[look.view];
    const focused = list.contains(document.activeElement) && document.activeElement.textContent;
    const shown = chosen.slice(page * size, (page + 1) * size);
    list.replaceChildren(shown.length ? (look.view === "table" ? table(shown) : gallery(shown)) : element("p", { text: "No image is left by these filters." }));
    if (focused) [...list.querySelectorAll("thead button")].find((button) => button.textContent === focused)?.focus();
    drawPager(size);
  }

  function drawPager(size) {
    const pages = Math.max(1, Math.ceil(chosen.length / size));
    const step = (text, by) => element("button", { type: "button", text, disabled: page + by < 0 || page + by >= pages, onclick: () => { page += by; draw(); document.getElementById("images").scrollIntoView(); } });
    document.getElementById("pager").replaceChildren(step("Previous", -1), element("span", { text: `page ${page + 1} of ${pages}` }), step("Next", 1));
    const { only } = augnet.filters.state, total = augnet.data.images.image_id.length;
    const missing = only ? only.size - [...only].filter((id) => augnet.data.images.image_id.includes(id)).length : 0;
    document.getElementById("matches").textContent = `${chosen.length.toLocaleString("en")} of ${total.toLocaleString("en")} images` +
      (missing ? `; ${missing} more are not in this page` : "");
  }

  function changed() {
    chosen = augnet.filters.selected();
    page = 0;
    draw();
  }

  function redraw() {
    for (const canvas of document.querySelectorAll("#image-list canvas, .exhibits .exhibit canvas")) canvas.redraw?.();
  }

  /** The controls of how images are shown. */
  function tools() {
    const control = (made, apply) => {
      made.addEventListener("input", () => apply(made.value));
      return made;
    };
    const opacity = element("input", { type: "range", id: "opacity", min: 0, max: 1, step: 0.05, value: look.opacity });
    return [
      labelled("View", control(choice({ id: "view" }, [["table", "table"], ["gallery", "gallery"]]), (value) => { look.view = value; changed(); })),
      labelled("Overlay", control(choice({ id: "overlay" }, ROWS.map((name) => [name, name === "difference" ? name : `${name} row`])), (value) => { look.name = value; redraw(); })),
      labelled("Values", control(choice({ id: "signed" }, [["", "magnitude"], ["signed", "signed"]]), (value) => { look.signed = value !== ""; redraw(); })),
      labelled("Opacity", control(opacity, (value) => { look.opacity = Number(value); redraw(); })),
    ];
  }

  return { exhibit, plain, fileOf, tools, changed };
})();
