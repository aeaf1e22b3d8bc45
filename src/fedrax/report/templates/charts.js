// Charts in place of the page's static pictures: each figure.chart holds a picture and its data as JSON.
const Charts = (() => {
  const {alike, button, colour, make, number, short} = Page;
  const SMOOTHINGS = [1, 3, 5, 10, 25];
  const FEW_SEEDS = 20;
  const CLOSE = 0.005, MOSTLY = 0.95;
  const DASHES = [[], [10, 5], [3, 4], [12, 4, 3, 4]];

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.spec = JSON.parse(figure.querySelector("script").textContent);
      const seeds = this.spec.groups.reduce((sum, group) => sum + (group.seeds?.length ?? 0), 0);
      this.choice = {
        x: this.spec.x[0][0], y: this.spec.y[0][0], smoothing: this.spec.smoothing ?? 1,
        statistic: this.spec.statistic ?? "mean", logX: false, logY: false, bands: true, seeds: seeds <= FEW_SEEDS,
      };
      this.hidden = new Set();
      this.known = new Map();
      this.keys = new Map();
      this.place = make("div", {class: "plot"});
      this.at = make("p", {class: "small at", "aria-live": "off"});
      this.legend = make("div", {class: "legend"});
      this.note = make("p", {class: "small coincide"});
      figure.append(make("div", {class: "live"}, this.tools(), this.place, this.at, this.legend, this.note));
      figure.classList.add("is-live");
      this.draw();
      new ResizeObserver(() => this.resize()).observe(this.place);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    }

    get several() {
      return this.spec.groups.some((group) => (group.seeds?.length ?? 0) > 1);
    }

    get banded() {
      return this.several || this.spec.groups.some((group) => group.low);
    }

    tools() {
      const longest = Math.max(0, ...this.spec.groups.flatMap((group) =>
        (group.seeds ?? []).map((seed) => Object.values(seed.y)[0].length)));
      // Means over evaluations of which some are left out would be others than the picture's.
      const smoothings = SMOOTHINGS.filter((count) => count === 1 || (!this.spec.thinned && 2 * count <= longest));
      if (!smoothings.includes(this.choice.smoothing)) smoothings.push(this.choice.smoothing);
      const counts = smoothings.map((count) => [count, count === 1 ? "none" : `${count} evaluations`]);
      const most = Math.max(0, ...this.spec.groups.map((group) => group.seeds?.length ?? 0));
      const parts = [
        this.select("over", "x", this.spec.x),
        this.select("value", "y", this.spec.y),
        this.select("smoothing", "smoothing", counts, Number),
        this.select("aggregate", "statistic", most < 4 ? [] : [["iqm", "IQM"], ["mean", "mean"]]),
        this.spec.kind === "points" ? "" : this.check("log x", "logX"),
        this.check("log y", "logY"),
        this.banded ? this.check("intervals", "bands") : "",
        this.several ? this.check("seeds", "seeds") : "",
        make("span", {class: "downloads"},
          button("CSV", "Save the lines that are shown as a table", () => this.saveTable()),
          button("SVG", "Save the chart as it is shown, as vectors", () => Exports.svg(this)),
          button("PDF", Exports.PDF, () => Exports.pdf(this)),
          button("PNG", "Save the chart as it is shown, as pixels", () => Exports.png(this))),
      ];
      return make("div", {class: "tools"}, ...parts.filter(Boolean));
    }

    select(text, name, options, read = String) {
      if (options.length < 2) return "";
      const chosen = make("select", {"data-choice": name, onchange: (event) => {
        this.choice[name] = read(event.target.value);
        this.draw();
      }});
      for (const [value, label] of options) {
        chosen.append(make("option", {value, selected: String(value) === String(this.choice[name])}, label));
      }
      return make("label", {}, `${text} `, chosen);
    }

    check(text, name) {
      const box = make("input", {type: "checkbox", "data-choice": name, checked: this.choice[name]});
      box.addEventListener("change", () => { this.choice[name] = box.checked; this.draw(); });
      return make("label", {}, box, ` ${text}`);
    }

    // Every group's {x, y, low, high, seeds} under what is chosen; without points where it has none.
    lines() {
      const {x, y, statistic, smoothing} = this.choice;
      return this.spec.groups.map((group, place) => {
        const key = [place, x, y, statistic, smoothing].join("|");
        if (!this.known.has(key)) this.known.set(key, this.line(group));
        return {...group, place, ...this.known.get(key)};
      }).filter((line) => line.x.length || line.seeds.length);
    }

    line(group) {
      const {x, y, statistic, smoothing} = this.choice;
      if (group.seeds) return {...Aggregate.curve(group, x, y, statistic, smoothing, this.spec.draws), held: true};
      const none = {x: [], y: [], seeds: []};
      if (group.values) return group.values[y] ? {...none, x: group.values[x], y: group.values[y]} : none;
      if (group.axis && (group.axis !== x || y !== this.spec.y[0][0])) return none;
      return {...none, x: group.x, y: group.y, low: group.low, high: group.high};
    }

    // Columns for uPlot over the union of all costs, and what each is.
    table(lines) {
      if (this.spec.kind === "points") return this.points(lines);
      const shown = lines.filter((line) => !this.hidden.has(line.place));
      const costs = new Set(this.spec.fromZero && !this.choice.logX ? [0] : []);
      const seeds = (line) => (this.choice.seeds || !line.x.length ? line.seeds : []);
      for (const line of shown) for (const curve of [line, ...seeds(line)]) curve.x.forEach((cost) => costs.add(cost));
      const grid = [...costs].filter((cost) => !this.choice.logX || cost > 0).sort((a, b) => a - b);
      const exact = (curve, values) => {
        const found = new Map(curve.x.map((cost, place) => [cost, values[place]]));
        return grid.map((cost) => found.get(cost) ?? null);
      };
      const column = (line, curve, values) =>
        line.held && curve.x.length ? Aggregate.held({x: curve.x, y: values}, grid) : exact(curve, values);
      const columns = [];
      for (const line of shown) {
        const bands = this.choice.bands && line.low?.some((low) => low !== null);
        if (bands) {
          columns.push({line, role: "low", values: column(line, line, line.low)});
          columns.push({line, role: "high", values: column(line, line, line.high)});
        }
        for (const seed of line.seeds.length > 1 || !line.x.length ? seeds(line) : []) {
          columns.push({line, role: "seed", values: column(line, seed, seed.y)});
        }
      }
      // Lines last, so that no band covers them.
      for (const line of shown) columns.push({line, role: "line", values: column(line, line, line.y)});
      return {grid, columns};
    }

    points(lines) {
      const shown = lines.filter((line) => !this.hidden.has(line.place));
      const rows = shown.flatMap((line) => line.x.map((x, place) => ({x, y: line.y[place], line, place})));
      rows.sort((a, b) => a.x - b.x);
      // An empty row on either side: uPlot draws only one of several points at an end.
      const ends = rows.length ? [rows[0].x, rows[rows.length - 1].x] : [0, 1];
      const margin = 0.04 * (ends[1] - ends[0]) || 0.04 * Math.abs(ends[0]) || 1;
      rows.unshift({x: ends[0] - margin, y: null});
      rows.push({x: ends[1] + margin, y: null});
      this.rows = rows;
      const values = (line) => rows.map((row) => (row.line === line ? row.y : null));
      return {grid: rows.map((row) => row.x), columns: shown.map((line) => ({line, role: "line", values: values(line)}))};
    }

    // The points at the cost under the pointer, each with its agent.
    tellPoints(at) {
      const cost = at === null || at === undefined ? undefined : this.rows[at].x;
      const shown = this.rows.filter((row) => row.line && row.x === cost);
      const axis = this.spec.x.find(([value]) => value === this.choice.x)[1];
      const names = [...new Set(shown.map((row) => row.line.names[row.place]))];
      this.at.textContent = shown.length ? `${axis} ${number(cost)}: ${names.join(", ")}` : "Point at a dot to read it.";
      const texts = alike(shown.map((row) => row.y));
      for (const [place, {value}] of this.keys) {
        value.textContent = texts.filter((_, row) => shown[row].line.place === place).join(", ");
      }
    }

    draw() {
      const lines = this.lines();
      const {grid, columns} = this.table(lines);
      this.columns = columns;
      const dashed = this.coinciding(columns);
      lines.forEach((line) => { line.dash = DASHES[Math.max(line.dash ?? 0, dashed.get(line.place) ?? 0) % DASHES.length]; });
      this.shownLines = lines;
      this.plot?.destroy();
      this.plot = new uPlot(this.options(columns, lines), [grid, ...columns.map((one) => one.values)], this.place);
      this.drawLegend(lines);
      this.tell();
    }

    options(columns, lines) {
      const points = this.spec.kind === "points";
      const dashOf = new Map(lines.map((line) => [line.place, line.dash]));
      const series = columns.map(({line, role, values}) => {
        const tint = colour(line.colour), single = values.filter((value) => value !== null).length === 1;
        const drawn = {
          paths: points ? () => null : line.held ? uPlot.paths.stepped({align: 1}) : uPlot.paths.linear(),
          spanGaps: !line.held, points: {show: false}, width: 0,
        };
        if (role === "low" || role === "high") return drawn;
        if (role === "seed") return {...drawn, stroke: tint, alpha: 0.35, width: 1, points: {show: single, size: 5, fill: tint}};
        const marked = points || line.marked || single;
        return {...drawn, stroke: tint, width: 2, dash: dashOf.get(line.place), points: {show: marked, size: 7, fill: tint, stroke: tint}};
      });
      const bands = columns.flatMap(({line, role}, place) =>
        role === "high" ? [{series: [place + 1, place], fill: `color-mix(in srgb, ${colour(line.colour)} 18%, transparent)`}] : []);
      const axis = (label, size) => ({
        label, size, labelSize: 22, gap: 4, stroke: colour("--muted"), labelFont: `13px ${colour("--font")}`,
        font: `12px ${colour("--font")}`, grid: {stroke: colour("--grid"), width: 1}, ticks: {show: false},
        values: (_, splits) => splits.map(short),
      });
      const name = (options, chosen) => options.find(([value]) => value === chosen)[1];
      const all = columns.flatMap((one) => one.values).filter((value) => value !== null);
      const bent = all.some((value) => value <= 0) ? 4 : 3;
      return {
        ...this.size(), series: [{}, ...series], bands, legend: {show: false},
        padding: [12, 12, 0, 0],
        scales: {x: {time: false, distr: this.choice.logX ? 3 : 1}, y: {distr: this.choice.logY ? bent : 1, ...(this.spec.range && !this.choice.logY ? {range: this.spec.range} : {})}},
        axes: [
          axis(name(this.spec.x, this.choice.x), 30),
          {...axis(name(this.spec.y, this.choice.y), 52), ...(this.spec.whole ? {incrs: [1, 2, 5, 10, 25, 50, 100]} : {})},
        ],
        cursor: {points: {size: 7}, drag: {x: true, y: false}},
        hooks: {setCursor: [() => this.tell()]},
      };
    }

    size() {
      const width = Math.max(260, this.place.clientWidth);
      return {width, height: Math.round(Math.min(440, Math.max(270, width * 0.55)))};
    }

    resize() {
      if (this.plot && this.plot.width !== this.size().width) this.plot.setSize(this.size());
    }

    // Which dashes tell lines apart that lie upon each other, by place; says so in the note.
    coinciding(columns) {
      const lines = columns.filter((one) => one.role === "line" && this.spec.kind !== "points");
      const all = lines.flatMap((one) => one.values).filter((value) => value !== null);
      const close = CLOSE * (all.reduce((a, b) => Math.max(a, b), -Infinity) - all.reduce((a, b) => Math.min(a, b), Infinity));
      const dashes = new Map(), said = [];
      lines.forEach((one, place) => {
        const earlier = lines.slice(0, place).filter((other) => {
          const both = one.values.map((_, at) => at).filter((at) => one.values[at] !== null && other.values[at] !== null);
          const near = both.filter((at) => Math.abs(one.values[at] - other.values[at]) <= close);
          return both.length > 1 && near.length >= MOSTLY * both.length;
        });
        if (!earlier.length) return;
        dashes.set(one.line.place, earlier.length);
        said.push(`${one.line.label} (dashed) lies on ${earlier.map((other) => other.line.label).join(" and ")}`);
      });
      this.note.textContent = said.length ? `${said.join("; ")}.` : "";
      return dashes;
    }

    // Buttons stay the same ones, so that the keyboard's focus does.
    drawLegend(lines) {
      for (const line of lines) {
        if (!this.keys.has(line.place)) this.keys.set(line.place, this.key(line));
        const tint = colour(line.colour), {element, swatch} = this.keys.get(line.place);
        const mark = this.spec.kind === "points" ? `<circle cx="14" cy="5" r="4" fill="${tint}"/>`
          : `<path d="M3 5h22" stroke="${tint}" stroke-width="3" stroke-dasharray="${line.dash.join(" ")}"/>`;
        swatch.innerHTML = `<svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">${mark}</svg>`;
        element.setAttribute("aria-pressed", String(!this.hidden.has(line.place)));
      }
      const elements = lines.map((line) => this.keys.get(line.place).element);
      const there = [...this.legend.children];
      if (elements.length !== there.length || elements.some((element, place) => element !== there[place])) {
        this.legend.replaceChildren(...elements);
      }
    }

    key(line) {
      const swatch = make("span", {class: "swatch"}), value = make("span", {class: "value"});
      const element = make("button", {
        type: "button", class: "key", title: "Click: on or off. Double click: this one alone, or all.",
        onclick: (event) => (event.detail > 1 ? this.alone(line.place) : this.toggle(line.place)),
      }, swatch, make("span", {class: "name"}, line.label), value);
      return {element, swatch, value};
    }

    toggle(place) {
      if (!this.hidden.delete(place)) this.hidden.add(place);
      this.draw();
    }

    alone(place) {
      const others = this.shownLines.map((line) => line.place).filter((other) => other !== place);
      const only = others.every((other) => this.hidden.has(other));
      this.hidden = new Set(only ? [] : others);
      this.draw();
    }

    // Values beside the names: under the pointer, else the last ones.
    tell() {
      if (!this.plot || !this.shownLines) return;
      const at = this.plot.cursor.idx, grid = this.plot.data[0];
      if (this.spec.kind === "points") { this.tellPoints(at); return; }
      const pointed = at !== null && at !== undefined;
      const axis = this.spec.x.find(([value]) => value === this.choice.x)[1];
      this.at.textContent = pointed ? `${axis}: ${number(grid[at])}` : this.spec.range
        ? "Point at the chart to read values." : "Last values; point at the chart to read others, drag to zoom, double-click to zoom out.";
      const told = [...this.keys].map(([place, key]) => {
        const of = (role) => this.columns.find((one) => one.line.place === place && one.role === role)?.values;
        const values = of("line");
        let where = at;
        if (values && !pointed) where = this.spec.range ? -1 : values.findLastIndex((value) => value !== null);
        const value = values?.[where], low = of("low")?.[where], high = of("high")?.[where];
        const known = (number) => number !== null && number !== undefined;
        return {key, values: !known(value) ? [] : known(low) ? [value, low, high] : [value]};
      });
      // As a column of a table: lines are compared.
      const texts = alike(told.flatMap(({values}) => values));
      for (const {key, values} of told) {
        const [value, low, high] = texts.splice(0, values.length);
        key.value.textContent = values.length > 1 ? `${value} [${low}, ${high}]` : value ?? "";
      }
    }

    saveTable() {
      const axis = this.spec.x.find(([value]) => value === this.choice.x)[1];
      const value = this.spec.y.find(([name]) => name === this.choice.y)[1];
      const shown = this.shownLines.filter((line) => !this.hidden.has(line.place));
      const rows = shown.flatMap((line) => line.x.map((x, place) =>
        [line.label, x, line.y[place], line.low?.[place], line.high?.[place]]));
      Page.save(Page.csv([["line", axis, value, "low", "high"], ...rows]), "text/csv", Page.named(this.figure, "csv"));
    }
  }

  return {all: [], start() { this.all = [...document.querySelectorAll("figure.chart")].map((figure) => new Chart(figure)); }};
})();
