// Heat maps: the number under the pointer, beside the names of its row and column.
const Maps = (() => {
  const {make, number} = Page;

  // The text of the cell at a point of the picture, given as shares of its width and height; null beside the maps.
  function told(maps, x, y) {
    const map = maps.find(({box: [left, top, right, bottom]}) => x >= left && x < right && y >= top && y < bottom);
    if (!map) return null;
    const [left, top, right, bottom] = map.box;
    const column = Math.floor(((x - left) / (right - left)) * map.columns.length);
    const row = Math.floor(((y - top) / (bottom - top)) * map.rows.length);
    return `${map.rows[row]}, ${map.columns[column]}: ${number(map.values[row][column])}`;
  }

  function start() {
    for (const figure of document.querySelectorAll("figure.map")) {
      const svg = figure.querySelector("svg"), maps = JSON.parse(figure.querySelector("script").textContent);
      const nothing = "Point at a cell to read it.";
      const at = make("p", {class: "small at", "aria-live": "off"}, nothing);
      const tell = (event) => {
        const {left, top, width, height} = svg.getBoundingClientRect();
        at.textContent = told(maps, (event.clientX - left) / width, (event.clientY - top) / height) ?? nothing;
      };
      svg.addEventListener("pointermove", tell);
      svg.addEventListener("pointerdown", tell);
      svg.addEventListener("pointerleave", () => { at.textContent = nothing; });
      figure.append(at);
    }
  }

  return {start};
})();
