"use strict";
// Numbers as colours: one table for magnitudes, one that is symmetric about zero for signed values.

augnet.colors = (() => {
  const tables = {};

  function table(signed) {
    const name = signed ? "signed" : "magnitude";
    tables[name] ??= augnet.bytes(augnet.data.colors[name]);
    return tables[name];
  }

  /** Paints values (height * width, row by row) into the canvas, which takes their size; `limit` is full colour.
      With `sheer`, values near zero let through what is below. */
  function paint(canvas, values, [height, width], signed, limit, sheer = false) {
    const colors = table(signed), context = sized(canvas, height, width);
    const pixels = context.createImageData(width, height);
    for (let k = 0; k < height * width; k++) {
      const share = limit > 0 ? values[k] / limit : 0;
      const step = signed ? 127.5 + 127.5 * share : 255 * share;
      const place = 3 * Math.max(0, Math.min(255, Math.round(step)));
      const alpha = sheer ? 255 * Math.sqrt(Math.min(1, Math.abs(share))) : 255;
      pixels.data.set([colors[place], colors[place + 1], colors[place + 2], alpha], 4 * k);
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function sized(canvas, height, width) {
    canvas.width = width;
    canvas.height = height;
    return canvas.getContext("2d");
  }

  /** A bar from the lowest to the highest colour, with what they stand for. */
  function bar(signed, limit, unit) {
    const steps = Array.from({ length: 256 }, (_, k) => (signed ? (k / 127.5 - 1) * limit : (k / 255) * limit));
    const canvas = paint(augnet.element("canvas", { "aria-hidden": "true" }), steps, [1, 256], signed, limit);
    const low = signed ? augnet.format(-limit) : "0";
    return [augnet.element("span", { text: low }), canvas, augnet.element("span", { text: `${augnet.format(limit)} ${unit}` })];
  }

  return { paint, sized, bar };
})();
