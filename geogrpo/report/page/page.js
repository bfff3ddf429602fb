// Ties the page together: reads the data, answers filters, keeps map, list and detail on one selection.

function start() {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const land = JSON.parse(byId("land").textContent);
  const thresholds = data.thresholds_km;
  const examples = data.examples.map((example) => describe(example, thresholds, data.farthest_km));
  const form = byId("filters");
  const filters = new Filters(form, examples, data.farthest_km);
  let shown = [];

  const map = new WorldMap(byId("map"), land, { numClasses: thresholds.length + 1, onPick: select, onHover: showTooltip });
  const list = new ExampleList(byId("list"), {
    label: byId("page-label"), previous: byId("page-previous"), next: byId("page-next"),
    headers: document.querySelectorAll("[data-sort]"), onPick: select, onSort: applyFilters,
  });

  function select(example) {
    const position = shown.indexOf(example);
    list.select(example);
    map.select(example);
    showDetail(example, position);
  }

  function showDetail(example, position) {
    const onStep = (change) => {
      select(shown[position + change]);
      byId("detail").querySelector(change < 0 ? ".steps :first-child" : ".steps :last-child").focus();
    };
    byId("detail").replaceChildren(...detail(example, { position, total: shown.length, onStep }));
  }

  function applyFilters() {
    shown = list.sorted(examples.filter(filters.test()));
    byId("range-label").textContent = filters.rangeText();
    const error = shown.length ? ` · median error ${formatKm(median(shown.map((example) => example.chargedKm)))}` : "";
    const count = shown.length.toLocaleString("en-US"), total = examples.length.toLocaleString("en-US");
    byId("status").textContent = `${count} of ${total} shown${error}`;
    map.show(shown);
    list.show(shown);
    if (list.selected) showDetail(list.selected, shown.indexOf(list.selected));
  }

  function showTooltip(example, x, y) {
    const tooltip = byId("tooltip");
    tooltip.hidden = !example;
    byId("map").classList.toggle("over-example", Boolean(example));
    if (!example) return;
    const answer = example.predicted ? placeName(example, 1) : "no coordinates";
    tooltip.textContent = `${placeName(example, 0)} → ${answer} · ${formatKm(example.distance_km)}`;
    const isRight = x > byId("map").clientWidth / 2;
    tooltip.style.left = isRight ? "auto" : `${x + 14}px`;
    tooltip.style.right = isRight ? `${byId("map").clientWidth - x + 14}px` : "auto";
    tooltip.style.top = `${y + 14}px`;
  }

  form.addEventListener("input", applyFilters);
  form.addEventListener("submit", (event) => event.preventDefault());
  // The controls have their first values only after the event.
  form.addEventListener("reset", () => setTimeout(applyFilters));
  byId("zoom-in").addEventListener("click", () => map.zoom(1.6));
  byId("zoom-out").addEventListener("click", () => map.zoom(1 / 1.6));
  byId("zoom-reset").addEventListener("click", () => map.reset());
  showLegend(byId("legend"), thresholds);
  if (data.world) offerPicture(map, data.world, byId("picture"), byId("picture-choice"));
  applyFilters();
  showTypical();
  requestAnimationFrame(() => setTimeout(() => performance.mark("ready")));

  // At first the example in the middle of the errors, without turning the list's page.
  function showTypical() {
    const position = shown.length >> 1;
    list.selected = shown[position];
    map.select(shown[position]);
    showDetail(shown[position], position);
  }
}

function describe(example, thresholds, farthestKm) {
  const found = thresholds.findIndex((km) => example.distance_km !== null && example.distance_km <= km);
  const errorClass = found < 0 ? thresholds.length : found;
  return {
    ...example, errorClass, chargedKm: example.distance_km ?? farthestKm,
    colorName: example.predicted ? `error-${errorClass}` : "error-none",
  };
}

function showLegend(legend, thresholds) {
  const last = thresholds[thresholds.length - 1].toLocaleString("en-US");
  const names = [...thresholds.map((km) => `≤ ${km.toLocaleString("en-US")} km`), `> ${last} km`];
  names.forEach((text, i) => {
    legend.append(element("li", {}, element("i", { className: `swatch error-${i}` }), text));
  });
  legend.append(element("li", {}, element("i", { className: "swatch error-none" }), "no coordinates"));
  legend.append(element("li", { text: "● truth  ○ answer", className: "marks" }));
}

function offerPicture(map, base64, box, choice) {
  const world = new Image();
  const show = () => map.setPicture(box.checked ? world : null);
  world.addEventListener("load", show);
  box.addEventListener("change", show);
  world.src = `data:image/jpeg;base64,${base64}`;
  choice.hidden = false;
}

start();
