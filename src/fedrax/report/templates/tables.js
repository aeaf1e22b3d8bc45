// Tables that sort by a column and can be saved.
const Tables = (() => {
  const {button, csv, make} = Page;
  const UNITS = {B: 1, kB: 1e3, MB: 1e6, GB: 1e9, s: 1, min: 60, h: 3600, "%": 1};
  const LATEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--"};

  // What a cell sorts by: its first quantity ("1 min 12 s" is one), else its text; a dash is last.
  function key(text) {
    if (text === "–" || text === "") return null;
    const plain = text.replaceAll(",", "").replace("−", "-");
    const quantities = [...plain.matchAll(/^(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:\s?(kB|MB|GB|B|s|min|h|%))?(?=$|[\s[(])|\s(\d+) (min|s)\b/g)];
    if (!quantities.length) return text.toLowerCase();
    return quantities.reduce((sum, found) => sum + Number(found[1] ?? found[3]) * (UNITS[found[2] ?? found[4]] ?? 1), 0);
  }

  function order(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true});
  }

  function sortBy(table, column) {
    const headings = [...table.tHead.rows[0].cells];
    const descending = headings[column].getAttribute("aria-sort") === "ascending";
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column].textContent.trim()), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? order(a, b) : descending ? order(b, a) : order(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  const lines = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const escaped = (text) => text.replace(/[\\~^–&%$#_{}]/g, (sign) => LATEX[sign] ?? `\\${sign}`);
  // As report.cells.latex_numbers: of a cell that is a number, with an interval or not, the negative ones in math mode.
  const latexCell = (text) => (typeof key(text) !== "number" ? escaped(text)
    : escaped(text).replace(/(?<![\w.-])-(?:inf|\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?)/g,
      (found) => `$${found.replaceAll(",", "{,}")}$`));

  function latex(table) {
    const [head, ...body] = lines(table).map((row) => `${row.map(latexCell).join(" & ")} \\\\`);
    const columns = `l${"r".repeat(table.tHead.rows[0].cells.length - 1)}`;
    return [`\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...body, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  function start() {
    for (const table of document.querySelectorAll(".scroll > table:not(.settings)")) {
      [...table.tHead.rows[0].cells].forEach((heading, column) => {
        const text = heading.textContent;
        heading.replaceChildren(make("button", {type: "button", class: "sort", onclick: () => sortBy(table, column)}, text || "name"));
      });
      table.parentElement.before(make("div", {class: "tools"}, make("span", {class: "downloads"},
        button("CSV", "Save this table", () => Page.save(csv(lines(table)), "text/csv", Page.named(table, "csv"))),
        button("LaTeX", "Save this table for booktabs", () => Page.save(latex(table), "text/x-tex", Page.named(table, "tex"))))));
    }
  }

  return {key, latex, latexCell, start};
})();
