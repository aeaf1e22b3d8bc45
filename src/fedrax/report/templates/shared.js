// What charts, pictures and tables of the page share: elements, colours of the theme, numbers, files to save.
const Page = (() => {
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  // "var(--series-0)" and "--muted" as the theme has them now.
  function colour(text) {
    const name = /--[\w-]+/.exec(text);
    return name ? getComputedStyle(document.documentElement).getPropertyValue(name[0]).trim() : text;
  }

  // As report.tables.number.
  function number(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
    return String(Number(value.toPrecision(4)));
  }

  // As report.tables.alike: all with as many digits after the point, at most four significant ones of the largest.
  function alike(values) {
    const known = values.filter((value) => Number.isFinite(value)), texts = known.map(number);
    const largest = known.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    if (largest < 1e-4) return values.map(number);
    const most = Math.max(0, 3 - Math.floor(Math.log10(largest)));
    const places = known.map((value, at) =>
      (value !== 0 && Math.abs(value) < 1e-4 ? most : (texts[at].split(".")[1] ?? "").length));
    const digits = {minimumFractionDigits: Math.min(most, Math.max(...places))};
    digits.maximumFractionDigits = digits.minimumFractionDigits;
    return values.map((value) => (Number.isFinite(value) ? value.toLocaleString("en-US", digits) : number(value)));
  }

  function short(value) {
    if (value === null || value === undefined) return "";
    for (const [scale, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (Math.abs(value) >= scale) return `${Number((value / scale).toPrecision(4))}\u2009${prefix}`;
    }
    return String(Number(value.toPrecision(6)));
  }

  const csvCell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = (rows) => rows.map((row) => row.map((cell) => csvCell(String(cell ?? ""))).join(",") + "\n").join("");
  const escaped = (text) => String(text).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

  function slug(text) {
    return text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "report";
  }

  function save(content, type, name) {
    const blob = content instanceof Blob ? content : new Blob([content], {type});
    const link = make("a", {href: URL.createObjectURL(blob), download: name});
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function named(element, suffix) {
    const heading = element.closest("section")?.querySelector("h2")?.textContent ?? "";
    return `${slug(`${document.title} ${heading}`)}.${suffix}`;
  }

  const button = (text, title, onclick) => make("button", {type: "button", title, onclick}, text);

  return {alike, button, colour, csv, escaped, make, named, number, save, short};
})();
