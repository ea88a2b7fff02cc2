"use strict";
// One image, enlarged: its picture and rows side by side, the values under the pointer, and all that is known of it.

augnet.viewer = (() => {
  const { element, format } = augnet;
  const PANELS = [["picture", 0], ["overlay", null], ["predicted", 1], ["rival", 1], ["difference", 1]];
  let list = [], at = 0, look = {};

  const part = (name) => document.querySelector(`#viewer .${name}`);

  /** Opens the viewer on an image; the arrow keys go through the list. */
  function open(image, images, how) {
    [list, at, look] = [images, images.indexOf(image), { ...how, opacity: how.opacity || 0.6 }];
    for (const control of document.querySelectorAll("#viewer select, #viewer input")) control.value = control.type === "range" ? look.opacity : look.signed ? "signed" : "";
    show();
    const dialog = document.getElementById("viewer");
    if (!dialog.open) dialog.showModal();
  }

  async function show() {
    const image = list[at], { images } = augnet.data;
    part("title").replaceChildren(augnet.table.fileOf(image));
    part("place").replaceChildren(element("bdi", { text: images.uri[image] }));
    part("values").textContent = "Point at a picture to see its values.";
    part("facts").replaceChildren(...facts(image));
    const shown = await augnet.pictures.exhibit(image);
    if (list[at] !== image) return;
    part("panels").replaceChildren(...PANELS.map(([name, opacity]) => panel(shown, name, opacity, image)).filter(Boolean));
    document.getElementById("viewer").dataset.shown = images.image_id[image];
  }

  function go(by) {
    if (at + by < 0 || at + by >= list.length) return;
    at += by;
    show();
  }

  /** A picture with its name and colour bar; nothing for a row that is not known. */
  function panel(shown, name, opacity, image) {
    const row = ["picture", "overlay"].includes(name) ? look.name : name;
    const found = augnet.pictures.row(shown, row, look.signed);
    if (!found && name !== "picture") return null;
    const canvas = element("canvas", { role: "img", "aria-label": `${name} of ${augnet.data.images.image_id[image]}` });
    augnet.pictures.draw(canvas, shown, { name: row, signed: look.signed, opacity: opacity ?? look.opacity });
    canvas.addEventListener("pointermove", (event) => { part("values").textContent = underPointer(event, canvas, shown); });
    const { images, outputs } = augnet.data;
    const of = { predicted: images.predicted[image], rival: images.rival[image] }[name];
    const title = of == null ? name : `${name} row: ${outputs[of] ?? of}`;
    const scale = found && name !== "picture" ? augnet.colors.bar(look.signed, found.limit, "") : [];
    return element("figure", {}, canvas, element("figcaption", {}, element("bdi", { text: title })), element("div", { class: "colorbar" }, ...scale));
  }

  /** The pixel of the model's input under the pointer, the picture's colour there, and the rows' values. */
  function underPointer(event, canvas, shown) {
    const box = canvas.getBoundingClientRect(), { input, picture, view, columns } = augnet.data.sheet;
    const down = clamp((event.clientY - box.top) / box.height), across = clamp((event.clientX - box.left) / box.width);
    const pixel = ([height, width]) => [Math.floor(down * height), Math.floor(across * width)];
    const [y, x] = pixel(input), [row, column] = pixel(picture), [top, left] = pixel(view);
    const one = augnet.colors.sized(document.createElement("canvas"), 1, 1);
    one.drawImage(shown.picture, (shown.place % columns) * picture[1] + column, Math.floor(shown.place / columns) * picture[0] + row, 1, 1, 0, 0, 1, 1);
    const color = [...one.getImageData(0, 0, 1, 1).data].slice(0, 3).join(", ");
    const parts = ["predicted", "rival", "difference"].map((name) => {
      const found = augnet.pictures.row(shown, name, look.signed);
      return found && `${name} ${format(found.values[top * view[1] + left])}`;
    });
    return [`row ${y}, column ${x}`, `picture ${color}`, ...parts.filter(Boolean)].join(" · ");
  }

  const clamp = (share) => Math.max(0, Math.min(1 - 1e-9, share));

  function facts(image) {
    const { images, outputs, statistics } = augnet.data;
    const name = (k) => (k == null ? "–" : outputs[k] ?? String(k));
    const pairs = [
      ["label", images.label[image] ?? "–"], ["predicted", name(images.predicted[image])],
      ["is", { true: "right", false: "wrong", null: "not judged" }[images.correct[image]]], ["rival", name(images.rival[image])],
      ["flags", images.flags[image].join(", ") || "none"],
      ...statistics.map(({ name, unit }) => [name, `${format(images[name][image])} ${unit}`]),
    ];
    return pairs.map(([key, value]) => element("div", {}, element("dt", { text: key }), element("dd", {}, element("bdi", { text: value }))));
  }

  /** Builds the viewer, empty, so that what has the focus keeps it from image to image. */
  function start() {
    const dialog = document.getElementById("viewer");
    const signed = augnet.choice({}, [["", "magnitude"], ["signed", "signed"]]);
    const opacity = element("input", { type: "range", min: 0, max: 1, step: 0.05 });
    signed.addEventListener("input", () => { look.signed = signed.value !== ""; show(); });
    opacity.addEventListener("input", () => { look.opacity = Number(opacity.value); show(); });
    const button = (text, onclick, autofocus = false) => element("button", { type: "button", text, onclick, autofocus });
    dialog.append(
      element("div", { class: "head" }, element("h2", { class: "title" }),
        element("div", { class: "buttons" }, button("Previous", () => go(-1)), button("Next", () => go(1), true), button("Close", () => dialog.close()))),
      element("p", { class: "place soft" }),
      element("div", { class: "tools" }, augnet.labelled("Values", signed), augnet.labelled("Opacity", opacity)),
      element("div", { class: "panels" }), element("p", { class: "values soft", role: "status" }), element("dl", { class: "pairs facts" }));
    dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by && !["INPUT", "SELECT"].includes(event.target.tagName)) go(by);
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  return { open, start };
})();
