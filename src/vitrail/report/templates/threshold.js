"use strict";
for (const box of document.querySelectorAll(".threshold")) {
  const rows = JSON.parse(box.dataset.numbers), cells = box.querySelectorAll("td");
  const slider = box.querySelector("input"), told = box.querySelector("output");
  const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");
  const percent = (share) => (100 * share).toFixed(1) + " %";
  const show = () => {
    const step = Number(slider.value), least = percent(step / Number(slider.max));
    told.textContent = least;
    slider.setAttribute("aria-valuetext", least);
    rows.forEach((row, place) => {
      const count = row.n[step], of = Array.isArray(row.of) ? row.of[step] : row.of;
      const share = of ? " (" + percent(count / of) + ")" : "";
      cells[place].textContent = grouped(count) + (of === undefined ? "" : " of " + grouped(of) + share);
    });
  };
  slider.addEventListener("input", show);
  box.querySelector("label").hidden = false;
  show();
}
