"use strict";
// Brings the page to life once it, its scripts and its data are there.

addEventListener("DOMContentLoaded", () => {
  const { filters, table, data } = augnet;

  function findings() {
    for (const article of document.querySelectorAll("[data-finding]")) {
      const { output, places, local, images } = data.findings[article.dataset.finding];
      const held = images.map(({ image_id }) => data.images.image_id.indexOf(image_id)).filter((k) => k >= 0);
      const shown = held.map((k) => {
        const { share } = images.find(({ image_id }) => image_id === data.images.image_id[k]), name = augnet.nameOf(data.images.image_id[k]);
        if (!local) return table.exhibit(k, held, [name], table.plain);
        return table.exhibit(k, held, [name, augnet.element("span", { class: "soft", text: ` ${Math.round(100 * share)} %` })]);
      });
      article.querySelector(".exhibits").append(...(local ? augnet.maps.outlined(output, places) : []), ...shown);
    }
  }

  function images() {
    const form = document.getElementById("filters");
    filters.fill(form);
    form.append(...table.tools());
    document.getElementById("matches").tabIndex = -1;
    filters.whenChanged(table.changed);
    filters.set({}, true);
  }

  for (const button of document.querySelectorAll("[data-filters]")) {
    button.addEventListener("click", () => filters.show(JSON.parse(button.dataset.filters)));
  }
  for (const button of document.querySelectorAll("[data-images]")) {
    button.addEventListener("click", () => filters.show({ only: new Set(JSON.parse(button.dataset.images)) }));
  }
  images();
  findings();
  augnet.maps.start();
  augnet.figures.start();
  augnet.viewer.start();
});
