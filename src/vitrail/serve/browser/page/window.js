// The stained-glass band, as at the head of every page of Vitrail.

const COLUMNS = 26, ROWS = 3, WIDTH = 1040, HEIGHT = 120;
const COLOURS = [1, 1, 1, 1, 2, 3, 3, 4, 5]; // blue holds a window together and red is rare, as at Chartres

export function drawWindow(svg, seed = 5) {
  const draw = () => { // mulberry32
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const shift = (inner, most) => (inner ? (2 * draw() - 1) * most : 0);
  const corners = Array.from({ length: ROWS + 1 }, (_, row) => Array.from({ length: COLUMNS + 1 }, (_, column) => [
    (column + shift(column > 0 && column < COLUMNS, 0.42)) * (WIDTH / COLUMNS),
    (row + shift(row > 0 && row < ROWS, 0.35)) * (HEIGHT / ROWS),
  ]));
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  for (let row = 0; row < ROWS; row++) {
    for (let column = 0; column < COLUMNS; column++) {
      const [a, b, c, d] = [corners[row][column], corners[row][column + 1], corners[row + 1][column + 1], corners[row + 1][column]];
      const cut = draw(); // some panes are cut along a diagonal
      const panes = cut < 0.22 ? [[a, b, c], [a, c, d]] : cut < 0.45 ? [[a, b, d], [b, c, d]] : [[a, b, c, d]];
      for (const pane of panes) {
        const polygon = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
        polygon.setAttribute("points", pane.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "));
        polygon.setAttribute("class", `g${COLOURS[Math.floor(draw() * COLOURS.length)]}`);
        polygon.setAttribute("opacity", (0.55 + 0.45 * draw()).toFixed(2));
        svg.append(polygon);
      }
    }
  }
}
