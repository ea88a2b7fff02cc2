"use strict";
// The pictures and row maps of the images: loaded sheet by sheet, drawn with the row laid over them.

augnet.pictures = (() => {
  const PLANES = { predicted: [0, 2], rival: [1, 3], difference: [null, 4] }; // signed, magnitude; see engine.batch.VIEWS
  const LEVELS = 127;
  const SMALLEST = 224; // pixels of a drawn side: few pixels are enlarged before the browser scales them
  const FINE = 64; // pictures with more pixels than this are no squares to be told apart, and are smoothed
  const sheets = {};

  /** A promise of a sheet: one picture of all, and for each image the scales and values of its views. */
  function sheet(number) {
    sheets[number] ??= augnet.load(`images-${String(number).padStart(3, "0")}`).then(async (data) => {
      const picture = new Image();
      picture.src = data.pictures;
      const [views] = await Promise.all([augnet.unpack(data.views), picture.decode()]);
      return { picture, views, scale: data.scale };
    });
    return sheets[number];
  }

  /** A promise of the image's place in its sheet. */
  async function exhibit(image) {
    const { images } = augnet.data.sheet;
    return { ...(await sheet(Math.floor(image / images))), place: image % images };
  }

  /** One plane's values and their largest magnitude; null where it is not known. */
  function plane({ views, scale, place }, view) {
    const [height, width] = augnet.data.sheet.view, size = height * width, limit = scale[place][view];
    if (limit == null) return null;
    const start = (place * scale[place].length + view) * size;
    return { limit, values: Float32Array.from(views.subarray(start, start + size), (step) => (step / LEVELS) * limit) };
  }

  /** Values of a row, "predicted", "rival" or "difference", over the view's pixels. */
  function row(shown, name, signed) {
    const [summed, magnitude] = PLANES[name];
    if (!signed) return plane(shown, magnitude);
    if (summed !== null) return plane(shown, summed);
    const own = plane(shown, PLANES.predicted[0]), other = plane(shown, PLANES.rival[0]);
    if (!own || !other) return null;
    const values = own.values.map((value, k) => value - other.values[k]);
    return { values, limit: values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) };
  }

  /** Draws the picture, and over it the row with this opacity. */
  function draw(canvas, shown, { name, signed, opacity }) {
    const { columns, picture: [height, width], view } = augnet.data.sheet;
    const factor = Math.max(1, Math.round(SMALLEST / Math.max(height, width)));
    const context = augnet.colors.sized(canvas, height * factor, width * factor);
    canvas.classList.toggle("fine", Math.max(height, width) > FINE);
    const left = (shown.place % columns) * width, top = Math.floor(shown.place / columns) * height;
    context.imageSmoothingEnabled = false;
    if (opacity < 1) context.drawImage(shown.picture, left, top, width, height, 0, 0, canvas.width, canvas.height);
    const values = opacity > 0 && row(shown, name, signed);
    if (!values) return;
    const layer = augnet.colors.paint(document.createElement("canvas"), values.values, view, signed, values.limit, signed && opacity < 1);
    context.globalAlpha = opacity;
    context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  }

  /** A canvas that shows an image once it is seen; `look` is {name, signed, opacity}, read at each drawing.
      Without a description, what is around it names the image. */
  function canvas(image, look, description) {
    const made = augnet.element("canvas", description ? { role: "img", "aria-label": description } : { "aria-hidden": "true" });
    const { picture: [height, width] } = augnet.data.sheet;
    augnet.colors.sized(made, height, width);
    made.redraw = async () => draw(made, await exhibit(image), look());
    augnet.whenSeen(made, made.redraw);
    return made;
  }

  return { exhibit, row, draw, canvas };
})();
