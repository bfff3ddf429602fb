// What is shown of the examples: filters, the list with its pages, the selected example.
// Text of examples goes to the page through textContent only.

const ROWS_PER_PAGE = 20;
const RANGE_STEPS = 200;

function element(name, { text, ...properties } = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function formatKm(km) {
  if (km === null) return "no coordinates";
  const digits = km < 10 ? 1 : 0;
  return `${km.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })} km`;
}

function formatPoint(point) {
  return point ? `${point[0].toFixed(3)}, ${point[1].toFixed(3)}` : "–";
}

// The most detailed names first: "Brest, France".
function placeName(example, side) {
  const names = example.names.map((row) => row[1 + side]).filter(Boolean);
  const ends = names.length > 1 ? [names[names.length - 1], names[0]] : names;
  return ends.join(", ") || formatPoint(side ? example.predicted : example.truth);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// What the filters ask for, as one test of an example.
class Filters {
  constructor(form, examples, farthestKm) {
    this.form = form;
    this.farthestKm = farthestKm;
    this.fillChoices(form.continent, examples.map((example) => example.continent));
    this.fillChoices(form.country, examples.map((example) => example.country));
    this.haystacks = new Map();
  }

  fillChoices(select, values) {
    const counts = new Map();
    for (const value of values) if (value) counts.set(value, (counts.get(value) ?? 0) + 1);
    for (const value of [...counts.keys()].sort((a, b) => a.localeCompare(b))) {
      select.append(element("option", { value, text: `${value} (${counts.get(value)})` }));
    }
    select.disabled = counts.size === 0;
  }

  // Steps of the slider are equal factors from 1 km to half the Earth; the first is 0 km.
  toKm(step) {
    return step === 0 ? 0 : Math.pow(this.farthestKm, step / RANGE_STEPS);
  }

  read() {
    const { search, continent, country, failures } = this.form;
    const [low, high] = [Number(this.form["range-low"].value), Number(this.form["range-high"].value)].sort((a, b) => a - b);
    return {
      words: search.value.trim().toLowerCase(), continent: continent.value, country: country.value,
      failuresOnly: failures.checked, lowKm: this.toKm(low),
      highKm: high === RANGE_STEPS ? Infinity : this.toKm(high),
    };
  }

  test() {
    const asked = this.read();
    return (example) =>
      (!asked.failuresOnly || !example.predicted)
      && (!asked.continent || example.continent === asked.continent)
      && (!asked.country || example.country === asked.country)
      && example.chargedKm >= asked.lowKm && example.chargedKm <= asked.highKm
      && (!asked.words || this.haystackOf(example).includes(asked.words));
  }

  haystackOf(example) {
    if (!this.haystacks.has(example)) {
      const names = example.names.flatMap((row) => [row[1], row[2]]);
      this.haystacks.set(example, [example.id, example.text, ...names].join("\n").toLowerCase());
    }
    return this.haystacks.get(example);
  }

  rangeText() {
    const { lowKm, highKm } = this.read();
    if (lowKm === 0 && highKm === Infinity) return "any";
    if (highKm === Infinity) return `from ${formatKm(lowKm)}`;
    return lowKm === 0 ? `up to ${formatKm(highKm)}` : `${formatKm(lowKm)} – ${formatKm(highKm)}`;
  }
}

const SORT_KEYS = {
  id: (example) => example.id,
  place: (example) => placeName(example, 0),
  error: (example) => example.chargedKm,
};

// The list of examples, a page at a time.
class ExampleList {
  constructor(body, { label, previous, next, headers, onPick, onSort }) {
    Object.assign(this, { body, label, previous, next, headers, onPick });
    this.examples = [];
    this.selected = null;
    this.page = 0;
    this.sort = { key: "error", isDescending: false };
    previous.addEventListener("click", () => this.turnTo(this.page - 1));
    next.addEventListener("click", () => this.turnTo(this.page + 1));
    for (const button of headers) {
      button.addEventListener("click", () => {
        const { key, isDescending } = this.sort;
        this.sort = { key: button.dataset.sort, isDescending: key === button.dataset.sort && !isDescending };
        for (const header of headers) header.parentElement.setAttribute("aria-sort", "none");
        button.parentElement.setAttribute("aria-sort", this.sort.isDescending ? "descending" : "ascending");
        onSort();
      });
    }
  }

  sorted(examples) {
    const key = SORT_KEYS[this.sort.key], sign = this.sort.isDescending ? -1 : 1;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
    return [...examples].sort((a, b) => sign * compare(key(a), key(b)));
  }

  show(examples) {
    this.examples = examples;
    this.turnTo(0);
  }

  select(example) {
    this.selected = example;
    const position = this.examples.indexOf(example);
    const hadFocus = this.body.contains(document.activeElement);
    this.turnTo(position < 0 ? this.page : Math.floor(position / ROWS_PER_PAGE));
    // The row that had the focus has been made anew.
    if (hadFocus) this.body.querySelector("[aria-current]")?.focus({ preventScroll: true });
  }

  turnTo(page) {
    this.page = page;
    const start = page * ROWS_PER_PAGE, shown = this.examples.slice(start, start + ROWS_PER_PAGE);
    this.body.replaceChildren(...shown.map((example) => this.row(example)));
    const total = this.examples.length.toLocaleString("en-US");
    this.label.textContent = shown.length ? `${start + 1} – ${start + shown.length} of ${total}` : "nothing to show";
    this.previous.disabled = page === 0;
    this.next.disabled = start + ROWS_PER_PAGE >= this.examples.length;
  }

  row(example) {
    const cell = (text, className = "") => element("td", { text, className });
    const name = element("button", { type: "button", text: example.id });
    const error = element("td", { className: "number" },
      element("i", { className: `swatch ${example.colorName}` }), formatKm(example.distance_km));
    const row = element("tr", { className: example === this.selected ? "selected" : "" },
      element("td", { className: "thumbnail" }, picture(example)), element("td", {}, name),
      cell(placeName(example, 0)), cell(example.predicted ? placeName(example, 1) : example.problem ?? "–"), error);
    if (example === this.selected) name.setAttribute("aria-current", "true");
    row.addEventListener("click", () => this.onPick(example));
    return row;
  }
}

function picture(example) {
  if (!example.image) return element("span", { className: "no-picture", text: example.image_problem ? "!" : "" });
  return element("img", { src: `data:image/jpeg;base64,${example.image}`, alt: "", loading: "lazy" });
}

function detail(example, { position, total, onStep }) {
  const step = (text, change) => {
    const button = element("button", { type: "button", text });
    button.disabled = position < 0 || position + change < 0 || position + change >= total;
    button.addEventListener("click", () => onStep(change));
    return button;
  };
  const parts = [
    element("div", { className: "detail-head" }, element("h3", { text: example.id, title: example.id }),
      element("div", { className: "steps" }, step("‹ Previous", -1), step("Next ›", 1))),
    element("div", { className: "detail-top" }, largePicture(example), facts(example)),
  ];
  if (example.facts.length) parts.push(factList(example));
  if (example.problem) parts.push(element("p", { className: "problem", text: example.problem }));
  if (example.names.length) parts.push(nameTable(example));
  if (example.rewards.length) parts.push(rewardList(example));
  if (example.thinking) parts.push(longText("Reasoning", example.thinking));
  parts.push(longText("Answer", example.text || "(empty)"));
  return parts;
}

function largePicture(example) {
  const made = picture(example);
  if (example.image) made.alt = `Image of ${example.id}`;
  else made.textContent = example.image_problem ?? "no picture";
  return made;
}

function facts(example) {
  const list = element("dl");
  const add = (term, value) => list.append(element("dt", { text: term }), element("dd", { text: value }));
  add("Truth", formatPoint(example.truth));
  add("Answer", formatPoint(example.predicted));
  if (example.radius_50_km !== null) add("50 % within", formatKm(example.radius_50_km));
  if (example.radius_90_km !== null) add("90 % within", formatKm(example.radius_90_km));
  const error = element("p", { className: "error" },
    element("i", { className: `swatch ${example.colorName}` }), formatKm(example.distance_km));
  return element("div", {}, error, list);
}

function factList(example) {
  const rows = example.facts.flatMap(([term, value]) => [element("dt", { text: term }), element("dd", { text: value })]);
  return element("dl", { className: "facts" }, ...rows);
}

function nameTable(example) {
  const rows = example.names.map(([level, truth, answer]) => element("tr", {},
    element("th", { text: level, scope: "row" }), element("td", { text: truth ?? "–" }),
    element("td", { text: answer ?? "–" })));
  const header = ["", "Truth", "Answer"].map((text) => element("th", { text, scope: "col" }));
  return element("table", { className: "names" },
    element("thead", {}, element("tr", {}, ...header)), element("tbody", {}, ...rows));
}

function rewardList(example) {
  const largest = Math.max(1, ...example.rewards.map(([, value]) => Math.abs(value ?? 0)));
  const rows = example.rewards.flatMap(([name, value]) => {
    const bar = element("i", { className: value < 0 ? "negative" : "" });
    bar.style.width = `${(100 * Math.abs(value ?? 0)) / largest}%`;
    const shown = value === null ? "–" : value.toFixed(3);
    return [element("dt", { text: name }), element("dd", {}, element("span", { className: "meter" }, bar), shown)];
  });
  return element("div", {}, element("h4", { text: "Rewards" }), element("dl", { className: "rewards" }, ...rows));
}

function longText(title, text) {
  return element("div", {}, element("h4", { text: title }), element("pre", { className: "text", text }));
}
