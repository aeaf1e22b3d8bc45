// Charts and pictures as files.
const Exports = (() => {
  const {button, colour, escaped, make} = Page;
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const LINE = 18;

  // The chart as it is shown, with its legend, as an <svg>.
  function drawn(chart) {
    const plot = chart.plot, ratio = uPlot.pxRatio;
    const [left, top, width, height] = ["left", "top", "width", "height"].map((side) => plot.bbox[side] / ratio);
    const x = (value) => left + plot.valToPos(value, "x"), y = (value) => top + plot.valToPos(value, "y");
    const font = escaped(colour("--font")), muted = colour("--muted"), grid = plot.data[0], parts = [];
    const text = (at, words, more = "") => parts.push(`<text x="${at[0].toFixed(1)}" y="${at[1].toFixed(1)}" ${more}>${escaped(words)}</text>`);
    const rule = (x1, y1, x2, y2) => parts.push(`<path d="M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}" stroke="${colour("--grid")}"/>`);
    const ticks = (axis) => (axis._splits ?? []).map((split, place) => [split, axis._values[place]]).filter(([split]) => split !== null);
    for (const [split, words] of ticks(plot.axes[0])) {
      rule(x(split), top, x(split), top + height);
      text([x(split), top + height + 16], words ?? "", 'text-anchor="middle"');
    }
    for (const [split, words] of ticks(plot.axes[1])) {
      rule(left, y(split), left + width, y(split));
      text([left - 6, y(split) + 4], words ?? "", 'text-anchor="end"');
    }
    text([left + width / 2, top + height + 38], plot.axes[0].label, 'text-anchor="middle"');
    parts.push(`<text transform="translate(14 ${(top + height / 2).toFixed(1)}) rotate(-90)" text-anchor="middle">${escaped(plot.axes[1].label)}</text>`);
    parts.push(`<clipPath id="area"><rect x="${left}" y="${top}" width="${width}" height="${height}"/></clipPath><g clip-path="url(#area)" fill="none">`);
    const corners = (line, values) => {
      const kept = grid.map((_, place) => place).filter((place) => values[place] !== null);
      return kept.flatMap((place, index) => {
        const before = index && line.held ? [[x(grid[place]), y(values[kept[index - 1]])]] : [];
        return [...before, [x(grid[place]), y(values[place])]];
      });
    };
    const path = (points) => `M${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`;
    const low = new Map(chart.columns.filter((one) => one.role === "low").map((one) => [one.line.place, one.values]));
    for (const {line, role, values} of chart.columns) {
      const points = corners(line, values), tint = colour(line.colour);
      if (!points.length || role === "low") continue;
      const dash = chart.shownLines.find((other) => other.place === line.place).dash.join(" ");
      if (role === "high") parts.push(`<path d="${path([...points, ...corners(line, low.get(line.place)).reverse()])}Z" fill="${tint}" fill-opacity=".18"/>`);
      else if (chart.spec.kind === "points") parts.push(...points.map(([a, b]) => `<circle cx="${a.toFixed(1)}" cy="${b.toFixed(1)}" r="3.5" fill="${tint}"/>`));
      else parts.push(`<path d="${path(points)}" stroke="${tint}" ${role === "seed" ? 'stroke-width=".8" stroke-opacity=".35"' : `stroke-width="2" stroke-dasharray="${dash}"`}/>`);
    }
    parts.push("</g>");
    const shown = chart.shownLines.filter((line) => !chart.hidden.has(line.place));
    shown.forEach((line, place) => {
      const at = plot.height + LINE * (place + 0.7);
      parts.push(`<path d="M${left} ${at - 4}h24" stroke="${colour(line.colour)}" stroke-width="3" stroke-dasharray="${line.dash.join(" ")}"/>`);
      text([left + 32, at], line.label, `fill="${colour("--ink")}"`);
    });
    const size = [plot.width, plot.height + LINE * (shown.length + 0.5)];
    return `<svg xmlns="${NAMESPACE}" viewBox="0 0 ${size.join(" ")}" width="${size[0]}" height="${size[1]}" font-family="${font}" font-size="12" fill="${muted}"><rect width="100%" height="100%" fill="${colour("--paper")}"/>${parts.join("")}</svg>`;
  }

  // A picture of the page by itself, in the colours of the theme.
  function standing(svg) {
    const copy = svg.cloneNode(true);
    copy.setAttribute("xmlns", NAMESPACE);
    copy.setAttribute("xmlns:xlink", "http://www.w3.org/1999/xlink");
    const {width, height} = svg.viewBox.baseVal;
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.style.background = colour("--paper");
    return new XMLSerializer().serializeToString(copy).replace(/var\((--[\w-]+)\)/g, (_, name) => colour(name).replaceAll('"', "'"));
  }

  async function pixels(text, element) {
    const picture = new Image();
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await picture.decode();
    const canvas = make("canvas", {width: 2 * picture.width, height: 2 * picture.height});
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => Page.save(blob, "image/png", Page.named(element, "png")));
  }

  // A document of this picture alone, printed at its own size: browsers save it as a PDF of vectors.
  function printed(text, title) {
    const svg = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    const [width, height] = ["width", "height"].map((side) => Math.ceil(parseFloat(svg.getAttribute(side))));
    const style = `@page { size: ${width}px ${height}px; margin: 0 } body { margin: 0 } svg { display: block }`;
    const frame = make("iframe", {class: "printing", title: "The picture to be printed"});
    frame.addEventListener("load", () => {
      const leave = () => setTimeout(() => frame.remove());
      frame.contentWindow.addEventListener("afterprint", leave);
      frame.contentWindow.print();
    }, {once: true});
    frame.srcdoc = `<!DOCTYPE html><title>${escaped(title)}</title><style>${style}</style>${text}`;
    document.body.append(frame);
  }

  const PDF = "Print the picture alone, at its own size: choose to save it as PDF";
  const paper = (text, element) => printed(text, Page.named(element, "pdf"));
  const vectors = (text, element) => Page.save(text, "image/svg+xml", Page.named(element, "svg"));

  // Buttons for the figures that are pictures only.
  function start() {
    for (const figure of document.querySelectorAll("figure:not(.chart)")) {
      const svg = figure.querySelector("svg");
      if (!svg) continue;
      const downloads = make("span", {class: "downloads"},
        button("SVG", "Save the picture as vectors", () => vectors(standing(svg), figure)),
        button("PDF", PDF, () => paper(standing(svg), figure)),
        button("PNG", "Save the picture as pixels", () => pixels(standing(svg), figure)));
      figure.prepend(make("div", {class: "tools"}, downloads));
    }
  }

  return {
    start, PDF,
    svg: (chart) => vectors(drawn(chart), chart.figure),
    pdf: (chart) => paper(drawn(chart), chart.figure),
    png: (chart) => pixels(drawn(chart), chart.figure),
  };
})();
