"use strict";
// Asks the server for what is new, and draws it. Every text that comes from a run is set as text, never as markup.

const EVERY = 2000; // milliseconds between two looks at a run that trains
const FIRST = ["return", "success", "train_return"]; // values that are drawn unless others are chosen
const HEIGHT = 260;
const MOST_LINES = 12; // in what hovering shows
const DASHES = [[], [9, 4], [2, 3], [9, 3, 2, 3], [16, 4]]; // of a setup's first seed, its second ...: they share its colour

const { number, short } = Page;
const by = (id) => document.getElementById(id);
const state = { turn: 0, epoch: -1, from: 0, chosen: null, rows: [], columns: [], data: null, hidden: new Set(), charts: new Map() };

function element(tag, text, classes) {
  return Page.make(tag, classes ? { class: classes } : {}, ...(text === undefined ? [] : [text]));
}

function colour(index) {
  if (index < state.data.colours.length) return state.data.colours[index];
  return `hsl(${Math.round(index * 137.508) % 360} 55% 50%)`;
}

function clock(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

// One look at a time: one that was begun since, such as for other values, takes the place of this.
async function look() {
  state.turn += 1;
  clearTimeout(state.timer);
  const turn = state.turn, names = state.chosen === null ? FIRST : state.chosen;
  const query = new URLSearchParams({ epoch: state.epoch, from: state.from, y: names.join(",") });
  let wait = EVERY;
  try {
    const answer = await fetch(`data?${query}`), text = await answer.text();
    if (turn !== state.turn) return;
    if (answer.ok) {
      const data = JSON.parse(text), fresh = take(data, names);
      if (fresh === null || data.next < data.total) wait = 0;
      else draw(fresh);
      if (data.series.every((one) => one.state === "finished")) wait = Math.max(wait, 5 * EVERY * (wait > 0));
    } else {
      by("lead").textContent = text;
    }
  } catch (error) {
    if (turn !== state.turn) return;
    by("lead").textContent = "the watching process does not answer: it has ended, or this machine is busy";
  }
  state.timer = setTimeout(look, wait);
}

// Takes an answer in; whether there is anything new, or null where all rows are to be asked for again.
function take(data, names) {
  const asked = names.filter((name) => data.names.includes(name));
  if (state.data !== null && data.from > 0 && asked.some((name) => !state.columns.includes(name))) {
    // Values that did not exist when the first rows came were not among them.
    Object.assign(state, { rows: [], from: 0, columns: data.columns, data });
    return null;
  }
  const anew = data.epoch !== state.epoch || data.from === 0;
  if (anew) state.rows = [];
  for (const row of data.rows) state.rows.push(row);
  Object.assign(state, { epoch: data.epoch, from: data.next, columns: data.columns, data });
  return data.rows.length > 0 || anew;
}

function groups() {
  const found = new Map();
  state.data.series.forEach((one, index) => {
    if (!found.has(one.group)) found.set(one.group, { name: one.group, colour: colour(found.size), members: [] });
    found.get(one.group).members.push({ ...one, index });
  });
  return [...found.values()];
}

function draw(fresh) {
  const all = groups();
  drawHeader(all);
  drawRuns(all);
  drawAttendance();
  drawNames();
  if (fresh) drawCharts(all);
}

function drawHeader(all) {
  const { data } = state, series = data.series, count = (wanted) => series.filter((one) => one.state === wanted).length;
  by("title").textContent = data.title;
  document.title = `${data.title} · fedrax watch`;
  by("path").textContent = data.path;
  by("damaged").textContent = data.damaged.join("\n");
  by("damaged").hidden = !data.damaged.length;
  const fraction = series.length ? series.reduce((sum, one) => sum + one.fraction, 0) / series.length : 0;
  by("bar").firstElementChild.style.width = `${(100 * fraction).toFixed(1)}%`;
  by("bar").setAttribute("aria-valuenow", (100 * fraction).toFixed(0));
  const words = { training: "training", waiting: "waiting", stopped: "not running", failed: "failed", finished: "finished" };
  const states = Object.keys(words).filter(count).map((one) => (series.length > 1 ? `${count(one)} ${words[one]}` : words[one]));
  const left = series.map((one) => one.left).filter((one) => one !== null);
  const parts = [`${(100 * fraction).toFixed(0)} %`, states.join(", ")];
  if (left.length) parts.push(`time left ${clock(Math.max(...left))}${count("waiting") ? " for what trains now" : ""}`);
  by("lead").textContent = parts.join(" · ");
}

function mean(values) {
  const known = values.filter((one) => one !== null);
  return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
}

function drawRuns(all) {
  const several = all.some((group) => group.members.length > 1);
  const headings = ["", ...(several ? ["seeds"] : []), "state", "progress", several ? "most rounds" : "rounds",
    several ? "mean return" : "return", several ? "mean best" : "best", several ? "steps, sum of seeds" : "steps", "time left"];
  by("runs").caption.textContent = "Runs. Click one to hide or show its lines."
    + (several ? " Lines of its seeds have one colour, and dashes of their own." : "");
  const head = element("tr");
  headings.forEach((text) => head.append(element("th", text, ["", "state", "progress"].includes(text) ? "text" : "")));
  by("runs").tHead.replaceChildren(head);
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.group : undefined;
  const rows = all.map((group) => {
    const row = element("tr"), name = element("td", undefined, "text"), toggle = element("button");
    const swatch = element("span", undefined, "swatch");
    swatch.style.background = group.colour;
    toggle.append(swatch, element("span", group.name));
    toggle.dataset.group = group.name;
    toggle.setAttribute("aria-pressed", String(!state.hidden.has(group.name)));
    toggle.addEventListener("click", () => {
      if (!state.hidden.delete(group.name)) state.hidden.add(group.name);
      draw(true);
    });
    name.append(toggle);
    const members = group.members, fraction = mean(members.map((one) => one.fraction));
    const kinds = [...new Set(members.map((one) => one.state))].map((one) => (one === "stopped" ? "not running" : one));
    const progress = element("td", undefined, "text"), bar = element("div", undefined, "bar"), inner = element("div");
    inner.style.width = `${(100 * fraction).toFixed(1)}%`;
    bar.append(inner);
    bar.title = `${(100 * fraction).toFixed(0)} %`;
    progress.append(bar);
    const left = members.map((one) => one.left).filter((one) => one !== null);
    row.append(name, ...(several ? [element("td", String(members.length))] : []), element("td", kinds.join(", "), "text"),
      progress, element("td", short(Math.max(...members.map((one) => one.rounds)))),
      element("td", number(mean(members.map((one) => one.last_return)))),
      element("td", number(mean(members.map((one) => one.best_return)))),
      element("td", short(members.reduce((sum, one) => sum + one.steps, 0))),
      element("td", left.length ? clock(Math.max(...left)) : "–"));
    return row;
  });
  by("runs").tBodies[0].replaceChildren(...rows);
  if (focused !== undefined) {
    const again = [...document.querySelectorAll("#runs button")].find((one) => one.dataset.group === focused);
    if (again) again.focus();
  }
}

function drawAttendance() {
  const rows = state.data.attendance, section = by("attendance"), table = section.querySelector("table");
  section.hidden = rows.length === 0 && state.data.refused.length === 0;
  by("refused").replaceChildren(...state.data.refused.map((one) => element("li", one)));
  const headings = ["agent", "site", "round", "outcome", "seconds", "of them work", "answered", "rounds missed", "up", "down", "why not"];
  const head = element("tr");
  headings.forEach((text) => head.append(element("th", text, ["site", "outcome", "why not"].includes(text) ? "text" : "")));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows.map((one) => {
    const row = element("tr");
    row.append(element("td", one.agent), element("td", one.site, "text"), element("td", one.round + 1), element("td", one.outcome, "text"),
      element("td", number(one.seconds)), element("td", number(one.work_seconds)),
      element("td", `${one.answered}/${one.asked}`), element("td", one.missed), element("td", `${short(one.bytes_up)}B`),
      element("td", `${short(one.bytes_down)}B`), element("td", one.reason, "text long"));
    return row;
  }));
}

function shown() {
  if (state.chosen !== null) return state.chosen.filter((name) => state.data.names.includes(name));
  return FIRST.filter((name) => state.data.names.includes(name));
}

function drawNames() {
  const key = JSON.stringify([state.data.names, shown()]);
  if (by("names").dataset.key === key) return;
  by("names").dataset.key = key;
  const present = shown();
  by("names").replaceChildren(...state.data.names.map((name) => {
    const label = element("label"), box = element("input");
    box.type = "checkbox";
    box.checked = present.includes(name);
    box.addEventListener("change", () => {
      state.chosen = box.checked ? [...shown(), name] : shown().filter((one) => one !== name);
      state.from = 0;
      look();
    });
    label.append(box, element("span", name));
    return label;
  }));
}

// The lines of one value: x and y of every series that has any, an exponential average of it where that is asked for.
function lines(name) {
  const column = state.columns.indexOf(name), x = state.columns.indexOf(by("axis").value);
  const weight = Number(by("smoothing").value), found = new Map();
  if (column < 0) return found;
  for (const row of state.rows) {
    const value = row[column], at = row[x];
    if (value === null || at === null || (by("log").checked && at <= 0)) continue;
    if (!found.has(row[0])) found.set(row[0], { x: [], y: [], last: value, mass: 0, sum: 0 });
    const line = found.get(row[0]);
    line.sum = weight * line.sum + (1 - weight) * value;
    line.mass = weight * line.mass + (1 - weight);
    // Of rows with the same x the last one counts: a line has one value there.
    if (line.x.length && line.x[line.x.length - 1] >= at) {
      line.y[line.y.length - 1] = line.sum / line.mass;
    } else {
      line.x.push(at);
      line.y.push(line.sum / line.mass);
    }
  }
  return found;
}

// Runs that were evaluated differently have charts of their own: their returns cannot share an axis.
function drawCharts(all) {
  const wanted = shown().flatMap((name) => state.data.parts.map((telling, part) => ({ name, telling, part, key: `${part} ${name}` })));
  const looks = getComputedStyle(document.documentElement);
  for (const [key, chart] of state.charts) {
    if (!wanted.some((one) => one.key === key)) {
      if (chart.plot) chart.plot.destroy();
      chart.box.remove();
      state.charts.delete(key);
    }
  }
  for (const { name, telling, part, key } of wanted) {
    if (!state.charts.has(key)) {
      const box = element("div", undefined, "chart"), inside = element("div"), heading = element("h2");
      box.append(heading, inside);
      state.charts.set(key, { box, heading, inside, plot: null, key: "" });
    }
    const chart = state.charts.get(key);
    chart.heading.textContent = name.replaceAll("_", " ") + (telling ? `: ${telling}` : "");
    by("charts").append(chart.box);
    drawChart(chart, name, part, all, looks);
  }
}

function drawChart(chart, name, part, all, looks) {
  const found = lines(name), entries = [];
  for (const group of all) {
    if (state.hidden.has(group.name)) continue;
    for (const [place, member] of group.members.entries()) {
      const line = member.part === part ? found.get(member.index) : undefined;
      const label = group.members.length > 1 ? `${group.name}, seed ${member.seed}` : group.name;
      const dash = DASHES[place % DASHES.length];
      if (line) entries.push({ label, colour: group.colour, dash, line, alone: line.x.length < 2, several: group.members.length > 1 });
    }
  }
  const key = JSON.stringify([by("axis").value, by("log").checked, entries.map((one) => [one.label, one.colour, one.alone])]);
  if (!entries.length) {
    if (chart.plot) chart.plot.destroy();
    chart.plot = null;
    chart.inside.replaceChildren(element("p", "nothing was measured yet", "muted"));
    chart.key = key;
    return;
  }
  const data = entries.length > 1 ? uPlot.join(entries.map((one) => [one.line.x, one.line.y])) : [entries[0].line.x, entries[0].line.y];
  if (chart.plot && chart.key === key) {
    chart.plot.setData(data);
    return;
  }
  if (chart.plot) chart.plot.destroy();
  chart.key = key;
  chart.inside.replaceChildren();
  const ink = looks.getPropertyValue("--muted").trim(), grid = looks.getPropertyValue("--grid").trim();
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 },
    values: (plot, ticks) => ticks.map(short) };
  const chosen = by("axis");
  const options = {
    width: chart.inside.clientWidth || 480,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { size: 6 }, drag: { x: true, y: false } },
    scales: { x: { time: false, distr: by("log").checked ? 3 : 1 } },
    axes: [{ ...axis, label: chosen.options[chosen.selectedIndex].text, labelSize: 22, size: 36 }, { ...axis, size: 58 }],
    series: [{}, ...entries.map((one) => ({
      label: one.label, stroke: one.colour, dash: one.dash, width: one.several ? 1.25 : 2, spanGaps: true, points: { show: one.alone },
    }))],
    plugins: [tip()],
  };
  chart.plot = new uPlot(options, data, chart.inside);
}

// What hovering shows: the lines nearest to the pointer, each at the point nearest to it.
function tip() {
  const box = element("div", undefined, "tip");
  box.hidden = true;
  function near(values, at) {
    for (let step = 0; step < values.length; step += 1) {
      if (values[at - step] !== null && values[at - step] !== undefined) return values[at - step];
      if (values[at + step] !== null && values[at + step] !== undefined) return values[at + step];
    }
    return null;
  }
  return {
    hooks: {
      init: (plot) => plot.over.append(box),
      setCursor: (plot) => {
        const { idx, left, top } = plot.cursor;
        box.hidden = idx === null || idx === undefined || left < 0;
        if (box.hidden) return;
        const pointer = plot.posToVal(top, "y");
        const lines = plot.series.slice(1).map((one, index) => ({ label: one.label, colour: one.stroke(plot, index + 1),
          value: near(plot.data[index + 1], idx) })).filter((one) => one.value !== null);
        lines.sort((a, b) => Math.abs(a.value - pointer) - Math.abs(b.value - pointer));
        const nearest = lines.slice(0, MOST_LINES).sort((a, b) => b.value - a.value);
        const chosen = by("axis");
        box.replaceChildren(element("div", `${chosen.options[chosen.selectedIndex].text} ${number(plot.data[0][idx])}`, "muted"),
          ...nearest.map((one) => {
            const line = element("div"), swatch = element("span", undefined, "swatch");
            swatch.style.background = one.colour;
            line.append(swatch, element("span", `${one.label}: ${number(one.value)}`));
            return line;
          }));
        const right = left > plot.over.clientWidth / 2;
        box.style.left = right ? "" : `${left + 14}px`;
        box.style.right = right ? `${plot.over.clientWidth - left + 14}px` : "";
        box.style.top = `${Math.max(0, Math.min(top, plot.over.clientHeight - box.offsetHeight))}px`;
      },
    },
  };
}

for (const id of ["axis", "smoothing", "log"]) {
  by(id).addEventListener("input", () => state.data !== null && drawCharts(groups()));
}
new ResizeObserver(() => {
  for (const chart of state.charts.values()) {
    if (chart.plot && chart.inside.clientWidth) chart.plot.setSize({ width: chart.inside.clientWidth, height: HEIGHT });
  }
}).observe(by("charts"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of state.charts.values()) chart.key = "";
  if (state.data !== null) drawCharts(groups());
});
look();
